"""How txregistry is packaged: `pip install .` builds a wheel from this.

`twisted.plugins` is listed by hand. It is a folder without `__init__.py`, as Twisted asks of plugins that other
projects add, and so no package that setuptools would find.
"""

from pathlib import Path
from runpy import run_path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

S3 = ["boto3>=1.34"]
REDIS = ["txredisapi>=1.6"]
INDEX = ["treq>=24.9"]
OPENSTACK = ["treq>=24.9"]
ACCOUNTS = ["bcrypt>=4"]
LINT = ["mypy>=1.11", "mypy-zope>=1.0.8", "ruff>=0.6", "types-PyYAML"]
TEST = [
    *("hypothesis>=6.100", "moto[s3,server]>=5", 'backports.zstd; python_version < "3.14"', "setuptools>=77"),
    "rsa>=4.9",
    *(*S3, *REDIS, *INDEX, *OPENSTACK, *ACCOUNTS),
]

setup(
    name="txregistry",
    version=run_path(str(HERE / "txregistry" / "version.py"))["__version__"],
    description="A container registry on Twisted and Klein: the OCI distribution API and Docker's V1 protocol",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The txregistry developers",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["container", "docker", "oci", "registry", "twisted", "klein"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: Twisted",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP :: HTTP Servers",
        "Topic :: System :: Software Distribution",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[*find_packages(include=["txregistry", "txregistry.*"]), "twisted.plugins"],
    package_data={"txregistry": ["py.typed"], "txregistry.config": ["*.yml"]},
    install_requires=[
        # Bounded on both sides, since web/ reaches below Twisted's public names (docs/dependencies.md).
        "Twisted[tls]>=26.4,<27",
        "klein>=24.8",
        "cryptography>=42",
        "pyOpenSSL>=24.3",
        "PyYAML>=6",
        "zope.interface>=6",
    ],
    extras_require={
        "s3": S3,
        "redis": REDIS,
        "index": INDEX,
        "openstack": OPENSTACK,
        "accounts": ACCOUNTS,
        "all": [*S3, *REDIS, *INDEX, *OPENSTACK, *ACCOUNTS],
        "test": TEST,
        "lint": LINT,
        "dev": [*TEST, *LINT, "towncrier", "tox>=4"],
    },
    entry_points={"console_scripts": ["txregistry = txregistry.cli.main:main"]},
    zip_safe=False,
)
