"""Processes that must not outlive the one that started them."""

import os
import threading
import time


def follow(parent: int) -> None:
    """From now on end when the process of this number, which started this one, has ended."""
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()


def end_with(parent: int) -> None:
    """End this process when its parent has ended: nobody would wait for what it does."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(143)
