"""What the settings say about front ends and web pages, and what they are warned about."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.test_service import WithSettings
from txregistry import config
from txregistry.fronts import accel_prefix_of, cors_of, front_warnings, proxies_of, redirects_of
from txregistry.service import web_options_of
from txregistry.storage.memory import MemoryDriver
from txregistry.web.cors import CorsRules


class FrontsTests(WithSettings, SynchronousTestCase):
    def test_nothing_is_the_default(self):
        settings = self.settings()
        self.assertEqual((proxies_of(settings), accel_prefix_of(settings), cors_of(settings)), (None, None, None))
        self.assertEqual(front_warnings(settings), [])

    def test_proxies(self):
        proxies = proxies_of(self.settings("{trusted_proxies: '127.0.0.1, 10.1.0.0/16'}"))
        assert proxies is not None
        for peer, believed in [("127.0.0.1", True), ("10.1.9.9", True), ("10.2.0.1", False)]:
            self.assertEqual(proxies.origin(peer, False, lambda name: []) is not None, believed)

    def test_accel(self):
        settings = self.settings("{nginx_x_accel_redirect: /files/}")
        self.assertEqual(web_options_of(settings).accel_prefix, "/files")
        self.assertEqual(front_warnings(settings), [])
        for wrong in ("files", "/", "'/a b'", "'/a?b'", "https://nginx/a"):
            error = self.assertRaises(config.ConfigError, self.settings, f"{{nginx_x_accel_redirect: {wrong}}}")
            self.assertIn("allowed is a path such as /docker-registry", str(error))

    def test_accel_needs_files(self):
        settings = self.settings("{storage: s3, boto_bucket: b, nginx_x_accel_redirect: /files}")
        self.assertIsNone(accel_prefix_of(settings))
        self.assertEqual(
            front_warnings(settings),
            ["nginx_x_accel_redirect has no effect with storage s3: nginx can send files alone"],
        )

    def test_redirects_need_an_engine_that_signs(self):
        local = self.settings("{storage_redirect: true}")
        self.assertEqual(
            front_warnings(local), ["storage_redirect has no effect with storage local: it signs no addresses"]
        )
        self.assertIsNone(redirects_of(local, MemoryDriver(Clock())))
        bucket = self.settings("{storage: s3, boto_bucket: b, storage_redirect: true}")
        self.assertEqual(front_warnings(bucket), [])

    def test_cors(self):
        settings = self.settings("{cors: {origins: 'https://ui.example', max_age: 1h, supports_credentials: true}}")
        methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        expected = CorsRules(("https://ui.example",), methods, ("Content-Type",), (), True, 3600)
        self.assertEqual(web_options_of(settings).cors, expected)
        self.assertEqual(front_warnings(settings), [])

    def test_cors_without_origins_is_off(self):
        self.assertIsNone(cors_of(self.settings("{cors: {max_age: 60}}")))

    def test_credentials_are_not_for_everybody(self):
        settings = self.settings("{cors: {origins: '*', supports_credentials: true}}")
        self.assertEqual(
            front_warnings(settings),
            ['cors: supports_credentials has no effect with the origin "*"; name the origins'],
        )
