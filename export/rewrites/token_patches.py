"""Feature maps to pixel-interleaved patch tokens and back, with nothing above rank 4.

MobileViT attends among the pixels that share an offset inside their patch. Tokens are kept as
(B, P, N, C): P = ph * pw offsets, N = H / ph * W / pw patches, channels last, so that every
projection is a plain matrix product over contiguous rows and the map's NHWC form needs two moves
of contiguous runs (of W * C and of C values) and no gather.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PatchGrid:
    """A map of `height` x `width` pixels in patches of `patch_height` x `patch_width`."""

    height: int
    width: int
    patch_height: int
    patch_width: int

    @property
    def offsets(self) -> int:
        """P, the pixels of a patch."""
        return self.patch_height * self.patch_width

    @property
    def patches(self) -> int:
        """N, the patches of a map."""
        return self.height * self.width // self.offsets

    def unfold(self, maps: Tensor) -> Tensor:
        """Turn (B, C, H, W) into (B, P, N, C); offsets and patches are in row-major order."""
        batch, channels = maps.shape[:2]
        ph, pw = self.patch_height, self.patch_width
        rows = maps.permute(0, 2, 3, 1).reshape(batch, self.height // ph, ph, self.width * channels)
        rows = rows.permute(0, 2, 1, 3).reshape(batch * ph, self.patches, pw, channels)
        return rows.permute(0, 2, 1, 3).reshape(batch, self.offsets, self.patches, channels)

    def fold(self, tokens: Tensor) -> Tensor:
        """Turn (B, P, N, C) into (B, C, H, W); the inverse of `unfold`."""
        batch, channels = tokens.shape[0], tokens.shape[3]
        ph, pw = self.patch_height, self.patch_width
        rows = tokens.reshape(batch * ph, pw, self.patches, channels).permute(0, 2, 1, 3)
        rows = rows.reshape(batch, ph, self.height // ph, self.width * channels)
        rows = rows.permute(0, 2, 1, 3).reshape(batch, self.height, self.width, channels)
        return rows.permute(0, 3, 1, 2)
