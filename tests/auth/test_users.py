"""The users file, as it is read and written."""

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from txregistry.auth.users import (
    UserExists,
    UserInvalid,
    UsersFile,
    check_name,
    check_password,
    is_password,
)

try:
    import bcrypt
except ImportError:
    raise SkipTest("bcrypt is not installed") from None


gensalt = bcrypt.gensalt


def cheap(password: str, prefix: bytes = b"2b") -> str:
    """A hash that takes little time."""
    return bcrypt.hashpw(password.encode(), gensalt(4)).replace(b"$2b$", b"$" + prefix + b"$").decode()


class UsersTests(SynchronousTestCase):
    def setUp(self):
        self.patch(bcrypt, "gensalt", lambda: gensalt(4))
        self.path = Path(self.mktemp())
        self.file = UsersFile(str(self.path))

    def test_without_a_file(self):
        self.assertEqual(self.file.read(), {})
        self.assertFalse(self.file.remove("joe"))
        self.assertFalse(self.path.exists())

    def test_created(self):
        self.file.create("joe", "secret")
        hashed = UsersFile(str(self.path)).read()["joe"]
        self.assertTrue(is_password("secret", hashed))
        self.assertFalse(is_password("Secret", hashed))
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual(sorted(os.listdir(self.path.parent)).count(self.path.name), 1)

    def test_nobody_is_created_twice(self):
        self.file.create("joe", "secret")
        before = self.path.read_bytes()
        self.assertRaises(UserExists, self.file.create, "joe", "other")
        self.assertEqual(self.path.read_bytes(), before)

    def test_other_lines_stay(self):
        text = f"# people\nann:{cheap('x')}\nold:$apr1$abc$def\n\njoe:{cheap('y')}\n"
        self.path.write_text(text)
        self.path.chmod(0o640)
        self.file.set("joe", "secret")
        lines = self.path.read_text().splitlines()
        self.assertEqual(lines[:4], text.splitlines()[:4])
        self.assertTrue(is_password("secret", lines[4].partition(":")[2]))
        self.assertEqual(len(lines), 5)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)
        self.assertTrue(self.file.remove("joe"))
        self.assertFalse(self.file.remove("joe"))
        self.assertEqual(self.path.read_text().splitlines(), text.splitlines()[:4])

    def test_what_apache_writes(self):
        self.path.write_text(f"joe:{cheap('secret', b'2y')}\nann:{cheap('secret', b'2a')}\n")
        for hashed in self.file.read().values():
            self.assertTrue(is_password("secret", hashed))
        self.assertEqual(set(self.file.read()), {"joe", "ann"})

    def test_what_is_no_hash_is_no_user(self):
        good = cheap("x")
        slow = good.replace("$04$", "$31$")
        self.path.write_text(f"a:plain\nb:$apr1$x$y\nc:\nd\n#e:{good}\nf:{good[:-1]}\ng:{slow}\n")
        self.assertEqual(self.file.read(), {})

    def test_read_at_once(self):
        """What was read before, unless the file has changed since, or is gone."""
        file = UsersFile(str(self.path), in_place=True)
        self.assertEqual(file.read_now(), {})
        self.file.set("joe", "secret")
        self.assertEqual(file.read_now(), {})
        self.assertEqual(file.read_now() or file.read(), file.read_now())
        self.assertEqual(list(file.read_now()), ["joe"])
        self.file.set("ann", "secret")
        self.assertEqual(file.read_now(), {})
        file.read()
        self.path.unlink()
        self.assertEqual(file.read_now(), {})

    def test_a_change_by_others_is_seen(self):
        self.path.write_text(f"joe:{cheap('x')}\n")
        self.assertEqual(set(self.file.read()), {"joe"})
        UsersFile(str(self.path)).set("ann", "y")
        self.assertEqual(set(self.file.read()), {"joe", "ann"})
        self.path.unlink()
        self.assertEqual(self.file.read(), {})

    def test_names(self):
        for name in ("a", "joe", "Joe_2", "a.b-c@d", "0", "x" * 64):
            check_name(name)
        for name in ("", ":", "a:b", "a b", "a\nb", "#a", ".a", "-a", "é", "x" * 65, "a\x00"):
            self.assertRaises(UserInvalid, check_name, name)
            self.assertRaises(UserInvalid, self.file.create, name, "secret")
        self.assertFalse(self.path.exists())

    def test_passwords(self):
        for password in ("x", "é" * 36, "x" * 72, " "):
            check_password(password)
        for password in ("", "é" * 36 + "x", "x" * 73, "a\0b"):
            self.assertRaises(UserInvalid, check_password, password)
            self.assertFalse(is_password(password, cheap(password.replace("\0", "")[:36])))

    def test_a_failed_write_leaves_nothing(self):
        self.file.set("joe", "x")
        before = self.path.read_bytes()

        def refuse(source, target):
            raise OSError(28, "full")

        self.patch(os, "replace", refuse)
        self.assertRaises(OSError, self.file.set, "ann", "x")
        self.assertEqual(self.path.read_bytes(), before)
        names = {name for name in os.listdir(self.path.parent) if name.startswith(self.path.name)}
        self.assertEqual(names, {self.path.name, self.path.name + ".lock"})
