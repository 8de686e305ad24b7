"""What the learner takes in and gives out: blocks to batches, weights to actors. No torch here."""
