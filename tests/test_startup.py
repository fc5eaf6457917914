"""What a process does as it starts to serve."""

import resource

from twisted.trial.unittest import SynchronousTestCase

from txregistry.startup import allow_many_files


class OpenFileTests(SynchronousTestCase):
    def test_the_limit_is_what_the_process_may_have(self):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(200, before[1]), before[1]))
        allow_many_files()
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (before[1], before[1]))
