"""A store that docker-registry wrote, of 0.6.5 and of later versions, is served as it is, and left as it is."""

from __future__ import annotations

import gzip
import json

from tests.web.v1.base import UNFINISHED, A, B, C, V1TestCase, archive, image_json, simple

D, OLD = "d" * 64, "myimage_With.Any-Shape"
LAYER = gzip.compress(archive(), mtime=0)


class Adopted(V1TestCase):
    def setUp(self) -> None:
        super().setUp()
        sums = {image: simple(image_json(image), LAYER) for image in (A, B, C, OLD)}
        files = {
            f"images/{A}/_checksum": sums[A].encode() + b"\n",
            f"images/{A}/ancestry": json.dumps([A]).encode(),
            f"images/{A}/_files": b"[]",
            f"images/{B}/_checksum": json.dumps([sums[B]]).encode(),  # since 0.7
            f"images/{B}/ancestry": json.dumps([B, A]).encode(),
            # C has neither a checksum nor an ancestry.
            f"images/{OLD}/ancestry": json.dumps([OLD]).encode(),
            f"images/{D}/json": image_json(D),
            f"images/{D}/ancestry": json.dumps([D]).encode(),
            f"images/{D}/_inprogress": b"true",
            f"images/{D}/layer": LAYER[:10],
            "repositories/foo/x%25%24_-t/tag_latest": A.encode(),
            "repositories/foo/x%25%24_-t/tag_old": OLD.encode() + b"\n",
            "repositories/foo/x%25%24_-t/json": b'{"last_update": 1390255309, "docker_version": "0.7.2"}',
            "repositories/foo/x%25%24_-t/taglatest_json": b'{"last_update": 1}',
            "repositories/foo/x%25%24_-t/_index_images": b'[{"id": "%s"}]' % A.encode(),
            "repositories/foo/x%25%24_-t/_images_list": b"[]",
            "repositories/library/secret/_private": b"",
            "repositories/library/secret/tag_bad": b"../../etc",
        }
        for image in (A, B, C, OLD):
            files[f"images/{image}/json"] = image_json(image, A if image == C else None)
            files[f"images/{image}/layer"] = LAYER
        for path, data in files.items():
            self.store(path, data)
        self.sums = sums
        self.before = self.everything()

    def test_images(self) -> None:
        for image in (A, B, C, OLD):
            answer = self.get(f"/v1/images/{image}/json")
            self.assertEqual((answer.code, answer.body), (200, self.before[f"images/{image}/json"]))
            self.assertEqual(answer.header("X-Docker-Size"), str(len(LAYER)))
            expected = self.sums[image] if image in (A, B) else None
            self.assertEqual(answer.header("X-Docker-Checksum"), expected)
            self.assertEqual(self.get(f"/v1/images/{image}/layer").body, LAYER)
        self.assertEqual(self.get(f"/v1/images/{B}/ancestry").json(), [B, A])
        self.refused(self.get(f"/v1/images/{C}/ancestry"), 404, "Image not found")
        self.assertEqual(self.everything(), self.before)

    def test_repositories(self) -> None:
        base = "/v1/repositories/foo/x%$_-t"
        self.assertEqual(self.get(f"{base}/tags").json(), {"latest": A, "old": OLD})
        self.accepted(self.get(f"{base}/tags/old"), text=json.dumps(OLD))
        self.assertEqual(self.get(f"{base}/json").json(), {"last_update": 1390255309, "docker_version": "0.7.2"})
        self.assertEqual(self.get(f"{base}/tags/latest/json").json(), {"last_update": 1})
        self.assertEqual(self.get(f"{base}/images").json(), [{"id": A}])
        self.assertEqual(self.get("/v1/repositories/secret/properties").json(), {"access": "private"})
        self.assertEqual(self.get("/v1/repositories/secret/tags").json(), {})
        self.refused(self.get("/v1/repositories/secret/tags/bad"), 404, "Image not found")
        names = [one["name"] for one in self.get("/v1/search").json()["results"]]
        self.assertEqual(names, ["foo/x%$_-t", "library/secret"])
        self.assertEqual(self.everything(), self.before)

    def test_finished_images_stay_as_they_are(self) -> None:
        for image in (A, B, C):
            self.refused(self.put(f"/v1/images/{image}/json", image_json(image)), 409, "Image already exists")
            self.refused(self.put(f"/v1/images/{image}/layer", LAYER), 409, "Image already exists")
        self.assertEqual(self.everything(), self.before)

    def test_a_push_that_the_old_server_began(self) -> None:
        for part in ("json", "layer", "ancestry"):
            self.refused(self.get(f"/v1/images/{D}/{part}"), 400, UNFINISHED)
        cookie = self.push_layer(D, LAYER)
        self.refused(self.get(f"/v1/images/{D}/layer"), 400, UNFINISHED)
        checksum = {"X-Docker-Checksum": simple(image_json(D), LAYER), **cookie}
        self.accepted(self.put(f"/v1/images/{D}/checksum", headers=checksum))
        self.finished(D, LAYER)

    def test_a_checksum_that_the_old_server_was_told(self) -> None:
        self.store(f"images/{D}/_checksum", simple(image_json(D), LAYER).encode())
        self.refused(self.put(f"/v1/images/{D}/layer", b"x"), 400, "Checksum mismatch, ignoring the layer")
        self.push_layer(D, LAYER)
        self.finished(D, LAYER)

    def test_children_of_images_without_ancestry(self) -> None:
        image = "e" * 64
        self.push_image(image, C)
        self.assertEqual(self.get(f"/v1/images/{image}/ancestry").json(), [image, C, A])

    def test_json_without_layer_can_be_pushed_again(self) -> None:
        image = "f" * 64
        self.store(f"images/{image}/json", image_json(image))
        self.refused(self.get(f"/v1/images/{image}/json"), 400, UNFINISHED)
        self.push_image(image, layer=LAYER)
        self.finished(image, LAYER)
