"""Attribution patching: every edge or node ranked by the first-order effect of corrupting it.

Reference: EAP (arXiv 2310.10348), EAP-IG (arXiv 2403.17806); of nodes as in MIB (arXiv 2504.13151).
"""
