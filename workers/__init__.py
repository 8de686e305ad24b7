"""The programs, one file each, and what they share. No program imports another."""
