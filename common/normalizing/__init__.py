"""Running figures of observations and rewards, by which the learner normalises them."""
