"""Which op of a Core ML package does not do what PyTorch does, and what to do about it.

`compare.blame` holds a package against the torch.export program it was converted from, op by op;
`keep.settle` finds the ops that half precision cannot hold.
"""
