"""The paper's loss and its variants. Pure: tensors in, tensors out."""
