"""Several learners of one run: what each has to do with the others, which torchrun has started.

Nothing here is imported by a learner that is alone.
"""
