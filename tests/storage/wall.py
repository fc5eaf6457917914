"""A wall clock without a reactor."""

import time


class WallClock:
    def seconds(self):
        return time.time()
