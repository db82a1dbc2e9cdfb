"""What a node keeps: its store, the chain in it, and the checks before a node starts on them."""
