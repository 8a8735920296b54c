"""Values computed by other code, and the script that computed them."""
