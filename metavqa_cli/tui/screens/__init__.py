"""The dashboard's rooms, one file each with its .tcss."""
