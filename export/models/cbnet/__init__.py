"""CBNet and its company: LeNet, BranchyNet, the light network, a hybrid behind an exit.

Sources: CBNet (arXiv 2403.07036) and its authors' notebooks for the sizes, BranchyNet (arXiv
1709.01686) for the exit, LeNet (LeCun et al. 1998) for the trunk.
"""
