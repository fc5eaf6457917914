"""Known layers and their checksums; Go's `archive/tar` and two Python programs agree on them."""

import base64
import gzip

JSON = b'{"id":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}'
#: Six members: a directory, two files, a symbolic and a hard link, a device.
GZIP = base64.b64decode("""
H4sIAAAAAAACA+2WSw7CIBBAWXuK3sAZPsN5GiXRiMUgjfH20taFqUm1MRCb8jZDUhbA63xM2G1ZYgAk
aKVi7BnHfo2ckxZIAuM+RJLIKsUy0F5D7eNRvHNhat+n7+PLLQQT/R+MtS6lfwQgKbunQa3gNQ6gHPtH
iP4hp//ff/JF+u/dVzfn7X7DCqujy39zvoR76vx/r/sT9T+uVeb8X3H9t8fmlLT/Iwet9Qz/QknBKp66
MRX/Q/+v/Z6lzv+h/3/pX3KK+Y85hpOV+29aa9PP/xyIaM78r4mzSiyv/uMzClYoFAp/zgOCMqxvABIA
AA==
""")
PLAIN = gzip.decompress(GZIP)
DIFF_ID = "sha256:220003669cd57c6c1acfecd55be40dc941dce4c8b62dbe97355467d42bb9359f"
TARSUM = "tarsum+sha256:a0c643564951b8a12e64972fbfc6b1c0b7a91f34e400d5fbe63394963a19f54c"
SIMPLE_PLAIN = "sha256:dd014d7d055c7a79f59f8886530ba2b021949485b475749bc8b390810b428038"
SIMPLE_GZIP = "sha256:0c0b0f4dc537e94264e9ce51d50008659fe86e92acb592a34cb5990c58d73a3a"
#: The sum over the JSON alone, of an archive without members.
TARSUM_OF_NOTHING = "tarsum+sha256:33b7bc8d46fa2803af8e88f9c16bccf9a3504b41b790506364599fe4d37fadc4"
#: One file `f` with content `hi` and mode 0100644, behind a pax header with a fraction in `mtime` and an xattr.
TARSUM_OF_PAX = "tarsum+sha256:d00ee2858d83b9acc98857e37c1338599c9608521d354670f3fab748e93ffde9"
