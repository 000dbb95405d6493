"""Training of LeNet, BranchyNet, CBNet and a hybrid behind an exit, on small grey images."""
