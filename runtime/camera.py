"""A camera's frames through PyAV: Video4Linux on Linux, AVFoundation on macOS."""

from __future__ import annotations

import sys
from pathlib import Path

from phoneward.errors import VideoError
from phoneward.runtime.frames import Frames
from phoneward.runtime.video import frames_of, import_av, open_container


def open_camera(number: int) -> Frames:
    """Open camera `number`: /dev/video<number> on Linux, AVFoundation's device on macOS.

    Times are those at which the driver says that frames were taken; damaged ones are left out.

    Written by FFmpeg's documentation of its devices and not run against a camera: the machine
    that tests run on has none. What is tested is the answer where there is no camera.

    Raises:
        VideoError: there is no such camera, it cannot be opened, or this is another system.
        MissingExtra: PyAV is not installed.
    """
    name = f"camera:{number}"
    av = import_av()
    options: dict[str, str] = {}
    if sys.platform == "darwin":
        form, device, options = "avfoundation", f"{number}:none", {"framerate": "30"}
    elif sys.platform == "linux":
        form, device = "v4l2", f"/dev/video{number}"
        if not Path(device).exists():
            raise VideoError(name, f"there is no {device}")
    else:
        raise VideoError(name, f"cameras are not supported on {sys.platform}")
    container = open_container(av, name, device, options, form)
    return frames_of(av, name, container, live=True)
