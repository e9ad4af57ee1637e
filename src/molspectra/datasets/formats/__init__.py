"""Byte formats that importers read: archives, zip members, npy streams, SDF tables, torch files."""
