"""Several learners of one run: what each has to do with the others, which torchrun has started.

A learner that is alone imports from here what says so, and nothing that imports torch.
"""
