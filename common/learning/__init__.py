"""What computes an update: the learner's state, and the engines. It never imports acting."""
