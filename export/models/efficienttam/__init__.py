"""EfficientTAM (Xiong et al., 2024, arXiv 2411.18933), written for export.

The modules carry the official parameter names, so that the official checkpoints load strictly;
`stages` cuts the model into four graphs of fixed shape.
"""
