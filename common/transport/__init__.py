"""What a run keeps in Redis. It carries bytes and never looks inside them."""
