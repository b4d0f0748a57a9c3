"""What the publishers themselves offer: where it is, and how to get it. See `sources`."""
