"""What the OpenStack engines share: HTTP in bounded time, and signing in with Keystone."""
