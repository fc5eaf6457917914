"""Each kind of mistake and its one line."""

from __future__ import annotations

from tests.config.helpers import ConfigCase, flavor

SAMPLE_SHOWS = "found an unknown key; allowed is a key that `txregistry config sample` shows"
ENGINES = "allowed is one of local, s3, gcs, swift, glance, elliptics"
NODES = (
    "allowed is a mapping of host to port, or a list of host:port or host:port:family"
    " (2 for IPv4, 10 for IPv6)"
)

#: What stands in the flavor `dev`, beside a sound local storage, and the line behind "config.yml: dev.".
KEYS = (
    ("storge: local", f"storge: {SAMPLE_SHOWS}; the closest known key is storage"),
    ("storage-path: /x", f"storage-path: {SAMPLE_SHOWS}; the closest known key is storage_path"),
    ("zzz: 1", f"zzz: {SAMPLE_SHOWS}"),
    ("12: 1", f"the number 12: {SAMPLE_SHOWS}"),
    ('"a\\nb": 1', f"a\\nb: {SAMPLE_SHOWS}"),
    ("bugsnagg: 1", f"bugsnagg: {SAMPLE_SHOWS}; the closest known key is bugsnag"),
    (
        "cache: {prot: 1}",
        "cache.prot: found an unknown key; allowed is one of host, port, db, password;"
        " the closest known key is port",
    ),
    ("cache: {port: 99999}", "cache.port: found the number 99999; allowed is a whole number from 1 to 65535"),
    ("cache: {port: abc}", "cache.port: found the text 'abc'; allowed is a whole number from 1 to 65535"),
    ("cache: {port: true}", "cache.port: found true; allowed is a whole number from 1 to 65535"),
    ("cache: {port: 1.5}", "cache.port: found the number 1.5; allowed is a whole number from 1 to 65535"),
    (
        "cache: redis",
        "cache: found the text 'redis'; allowed is a mapping of host, port, db, password, or true",
    ),
    ("cache: {host: 5}", "cache.host: found the number 5; allowed is text in quotes"),
    ("cache: {password: 12345}", "cache.password: found a number; allowed is text in quotes"),
    ("secret_key: [abc]", "secret_key: found a list; allowed is text"),
    ("delete: 1", "delete: found the number 1; allowed is true or false"),
    ("delete: maybe", "delete: found the text 'maybe'; allowed is true or false"),
    ("threads: 0", "threads: found the number 0; allowed is a whole number from 1 to 1024"),
    ("threads: {a: b}", "threads: found a mapping; allowed is a whole number from 1 to 1024"),
    ("threads: 2020-01-01", "threads: found a date; allowed is a whole number from 1 to 1024"),
    ("workers: many", "workers: found the text 'many'; allowed is a whole number from 0 to 1024, or auto"),
    (
        "loglevel: warnign",
        "loglevel: found the text 'warnign'; allowed is one of debug, info, warn, error, critical;"
        " the closest is warning",
    ),
    ("loglevel: 10", "loglevel: found the number 10; allowed is one of debug, info, warn, error, critical"),
    (
        "max_manifest_size: 4X",
        "max_manifest_size: found the text '4X'; allowed is a size from 1024 to 67108864 bytes,"
        " such as 4194304 or 4M",
    ),
    (
        "upload_purge_age: soon",
        "upload_purge_age: found the text 'soon'; allowed is a time from 60 to 1000000000 seconds,"
        " such as 3600, 90s, 15m, 12h or 7d",
    ),
    (
        "external_url: registry.example.com",
        "external_url: found the text 'registry.example.com';"
        " allowed is a URL such as https://registry.example.com",
    ),
    (
        "external_url: 'http://a:b'",
        "external_url: found the text 'http://a:b'; allowed is a URL such as https://registry.example.com",
    ),
    (
        "listen: 5000",
        "listen: found the number 5000; allowed is an endpoint such as tcp:5000, tcp:5000:interface=127.0.0.1,"
        " https:5443 or unix:/run/registry.sock",
    ),
    (
        "listen: [tcp:1, tcp:70000]",
        "listen[1]: found the text 'tcp:70000'; allowed is an endpoint such as tcp:5000,"
        " tcp:5000:interface=127.0.0.1, https:5443 or unix:/run/registry.sock",
    ),
    (
        "listen: https:5443",
        "listen: found 'https:5443', but tls_certificate is missing; allowed is https: with tls_certificate and"
        " tls_key",
    ),
    (
        "tls_key: /k",
        "tls_key: found a key without a certificate; allowed is both, or tls_certificate alone with the key in its"
        " file",
    ),
    ("users_file: 5", "users_file: found the number 5; allowed is a path in quotes"),
    (
        "trusted_proxies: [localhost]",
        "trusted_proxies[0]: found the text 'localhost'; allowed is an address or a network such as 10.0.0.0/8",
    ),
    (
        "accounts: opne",
        "accounts: found the text 'opne'; allowed is one of closed, open; the closest is open",
    ),
    (
        "smtp_secure: {certfile: /c}",
        "smtp_secure: found a mapping without keyfile;"
        " allowed is true, false, a path, or a mapping of keyfile and certfile",
    ),
    (
        "email_exceptions: {smtp_secure: {key: /c}}",
        "email_exceptions.smtp_secure.key: found an unknown key; allowed is one of keyfile, certfile;"
        " the closest known key is keyfile",
    ),
    (
        "smtp_host: 'h:x', from_addr: a, to_addr: b",
        "smtp_host: found the text 'x'; allowed is a whole number from 1 to 65535",
    ),
    (
        "email_exceptions: {smtp_host: ':25', from_addr: a, to_addr: b}",
        "email_exceptions.smtp_host: found the mail server ':25'; allowed is HOST or HOST:PORT",
    ),
    *(
        (
            f"{name}: {text}",
            f"{name}: found the text {shown}; allowed is a mail address such as ops@example.com" + more,
        )
        for name, more in (("from_addr", ""), ("to_addr", ""))
        for text, shown in (
            ("a b", "'a b'"),
            ("ä@b", "'\\xe4@b'"),
            ('"a@b\\nBcc: c@d"', "'a@b\\nBcc: c@d'"),
            ("A <a@b> c", "'A <a@b> c'"),
            ('"A\\n <a@b>"', "'A\\n <a@b>'"),
        )
    ),
    ("access_log: 3", 'access_log: found the number 3; allowed is "-" (in quotes), a path, or off'),
    ("s3_encrypt: 'true'", "s3_encrypt: found the text 'true'; allowed is true or false"),
    ("nodes: {h: 70000}", f"nodes: found the text 'h:70000'; {NODES}"),
    ("nodes: [h]", f"nodes[0]: found the text 'h'; {NODES}"),
    ("groups: [0]", "groups[0]: found the number 0; allowed is a list of group numbers from 1 up"),
    (
        "wait-timeout: 1, elliptics_wait_timeout: 2",
        "elliptics_wait_timeout: found another value than in wait-timeout; allowed is one of the two spellings",
    ),
)

#: The whole flavor `dev`, and its line behind "config.yml: dev.".
STORES = (
    ("storage: s4", f"storage: found the text 's4'; {ENGINES}; the closest is s3"),
    ("storage: azureblob", f"storage: found the text 'azureblob'; {ENGINES}"),
    (
        "storage: local",
        "storage_path: found nothing; storage local needs this key, allowed is text",
    ),
    (
        "storage_path: _env:STORE",
        "storage_path: found nothing (the environment variable STORE is not set); storage local needs this key,"
        " allowed is text",
    ),
    (
        "storage_path: _env:EMPTY",
        "storage_path: found nothing (the environment variable EMPTY is empty or a placeholder); storage local needs"
        " this key, allowed is text",
    ),
    (
        "storage: s3, boto_bucket: REPLACEME",
        "boto_bucket: found nothing (it is still REPLACEME); storage s3 needs this key, allowed is text",
    ),
    (
        "storage: gcs, s3_bucket: b",
        "boto_bucket: found nothing; storage gcs needs this key, allowed is text",
    ),
    (
        "storage: s3, boto_bucket: a, s3_bucket: b",
        "s3_bucket: found 'b', but boto_bucket is 'a'; allowed is one of them, or both alike",
    ),
    (
        "storage: glance",
        "storage_path: found nothing; storage local needs this key, allowed is text",
    ),
    (
        "storage: glance, storage_alternate: glance",
        "storage_alternate: found the text 'glance'; allowed is one of local, s3, gcs, swift, elliptics",
    ),
    (
        "storage: elliptics, groups: [1]",
        f"elliptics_nodes: found nothing; storage elliptics needs this key, {NODES}",
    ),
    (
        "storage_path: /x, threads: _env:WORD",
        "threads: found the text 'some word' (from the environment variable WORD);"
        " allowed is a whole number from 1 to 1024",
    ),
    (
        "storage_path: /x, loglevel: _env:WORD",
        "loglevel: found the text 'some word' (from the environment variable WORD);"
        " allowed is one of debug, info, warn, error, critical",
    ),
)

#: A whole file, and its line.
FILES = (
    (
        "prod: {}\ntest: {}",
        "config.yml: flavor: found 'dev', which is not in the file; allowed is one of prod, test",
    ),
    (
        "devel: {}",
        "config.yml: flavor: found 'dev', which is not in the file; allowed is one of devel; the closest is devel",
    ),
    (
        "storage: local",
        "config.yml: flavor: found 'dev', which is not in the file;"
        " allowed is a flavor that is in the file, and it has none",
    ),
    ("", "config.yml: found nothing; allowed is a mapping of flavors"),
    ("[dev]", "config.yml: found a list; allowed is a mapping of flavors"),
    ("dev: 5", "config.yml: dev: found the number 5; allowed is a mapping of keys"),
    ("common: a\ndev: {}", "config.yml: common: found the text 'a'; allowed is a mapping of keys"),
    (
        "common: {threads: x}\ndev: {}",
        "config.yml: common.threads: found the text 'x'; allowed is a whole number from 1 to 1024",
    ),
    ("dev:\n  a: [1", "config.yml:2:8: not YAML: expected ',' or ']', but got '<stream end>'"),
    ("dev:\n\ta: 1", "config.yml:2:1: not YAML: found character '\\t' that cannot start any token"),
    (
        "dev:\n  access_log: -\n",
        'config.yml:2:15: not YAML: sequence entries are not allowed here (a lone "-" needs quotes)',
    ),
    ("dev:\n  threads: 1\n  threads: 2", "config.yml:3:3: not YAML: the key 'threads' is given twice"),
    ("dev: {}\nother: {a: {b: 1, b: 2}}", "config.yml:2:19: not YAML: the key 'b' is given twice"),
    ("dev: {}\ndev: {}", "config.yml:2:1: not YAML: the key 'dev' is given twice"),
    (
        "dev: !!python/object/apply:os.system [x]",
        "config.yml:1:6: not YAML: could not determine a constructor for the tag"
        " 'tag:yaml.org,2002:python/object/apply:os.system'",
    ),
    ("dev: {threads: 2020-13-45}", "config.yml:1:16: not YAML: this cannot be read as timestamp"),
    ("dev: {}\n---\nprod: {}", "config.yml:2:1: not YAML: but found another document"),
    ("dev: &a [*a]", "config.yml: dev: found a list; allowed is a mapping of keys"),
    ("dev: {listen: &a [*a]}", "config.yml: dev.listen" + "[0]" * 16 + "[0...: nested too deeply"),
    (b"dev: {a: \xff}", "config.yml: not YAML: invalid start byte at position 9"),
)


class MistakeTests(ConfigCase):
    def test_keys(self) -> None:
        for keys, expected in KEYS:
            line = self.line(flavor(f"storage: local, storage_path: /x, {keys}"))
            self.assertEqual(line, f"config.yml: dev.{expected}", keys)

    def test_stores(self) -> None:
        for keys, expected in STORES:
            line = self.line(flavor(keys), environ={"WORD": "some word", "EMPTY": ""})
            self.assertEqual(line, f"config.yml: dev.{expected}", keys)

    def test_files(self) -> None:
        for text, expected in FILES:
            self.assertEqual(self.line(text), expected, text)

    def test_deep_nesting(self) -> None:
        self.assertEqual(self.line("dev: " + "[" * 5000), "config.yml: not YAML: nested too deeply")

    def test_secrets_from_the_environment_are_not_shown(self) -> None:
        text = "dev: {storage_path: /x, smtp_password: _env:P, threads: _env:P}"
        line = self.line(text.replace("smtp_password: _env:P, ", ""), environ={"P": "[1]"})
        self.assertIn("dev.threads: found a list (from the environment variable P)", line)
        settings = self.load(text.replace(", threads: _env:P", ""), environ={"P": "[1]"})
        self.assertEqual(settings.values["smtp_password"], "[1]")
