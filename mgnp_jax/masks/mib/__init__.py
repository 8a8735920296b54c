"""Circuits in the files that EAP-IG and MIB read and write."""
