"""The V1 protocol's names, images, checksums and lists, as docker-registry 0.6.5 understood them."""
