"""The learner's work: take blocks, fill batches, update, publish. It never imports acting."""
