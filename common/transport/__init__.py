"""What a run keeps in Redis, and who may do what with it. It carries bytes and never looks inside them."""
