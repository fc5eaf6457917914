// Command v1docker moves images by the V1 protocol with the code that docker itself did it with: the package
// `registry` of docker 19.03, the last with V1 push and pull in it.
//
//	v1docker -index HOST:PORT [-user NAME -password TEXT] -name NAMESPACE/REPOSITORY [-seed N] push|pull
//	v1docker -index HOST:PORT search TERM
//
// The images are made here and follow from the seed, so that a pull can compare. A push and a pull print the ids, the
// base first, a search the names.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand"
	"os"
	"slices"

	"github.com/docker/distribution/reference"
	"github.com/docker/docker/api/types"
	registrytypes "github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/registry"
)

// image is one V1 image.
type image struct {
	id    string
	json  []byte
	files map[string][]byte // what its layer holds
}

func main() {
	index := flag.String("index", "", "host and port of the index, which may be the registry")
	name := flag.String("name", "lab/v1", "namespace and repository")
	user := flag.String("user", "", "name for the index")
	password := flag.String("password", "", "its password")
	seed := flag.Int64("seed", 1, "what the images are made of")
	flag.Parse()
	session := newSession(*index, *user, *password)
	images := makeImages(*seed)
	switch flag.Arg(0) {
	case "push":
		push(session, repository(*index, *name), images)
	case "pull":
		pull(session, repository(*index, *name), images)
	case "search":
		for _, found := range must(session.SearchRepositories(flag.Arg(1), 25)).Results {
			fmt.Println(found.Name)
		}
		return
	default:
		fail("push, pull or search?")
	}
	for _, one := range images {
		fmt.Println(one.id)
	}
}

func fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	os.Exit(1)
}

func check(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func repository(host, name string) reference.Named {
	return must(reference.ParseNormalizedNamed(host + "/" + name))
}

func newSession(host, user, password string) *registry.Session {
	endpoint := must(registry.NewV1Endpoint(&registrytypes.IndexInfo{Name: host}, "docker/19.03.15", nil))
	client := registry.HTTPClient(registry.NewTransport(nil))
	return must(registry.NewSession(client, &types.AuthConfig{Username: user, Password: password}, endpoint))
}

// makeImages makes a chain of three, the base first: a big layer, a small one, an empty one.
func makeImages(seed int64) []image {
	noise := make([]byte, 1_000_000)
	rand.New(rand.NewSource(seed)).Read(noise)
	layers := []map[string][]byte{
		{"data.bin": noise, "etc/motd": []byte("hello\n")},
		{"etc/motd": fmt.Appendf(nil, "hello again, %d\n", seed)},
		{},
	}
	var images []image
	for number, files := range layers {
		sum := sha256.Sum256(fmt.Appendf(nil, "%d %d", seed, number))
		one := image{id: hex.EncodeToString(sum[:]), files: files}
		fields := map[string]any{"id": one.id, "created": "2014-01-20T00:00:00Z", "architecture": "amd64", "os": "linux"}
		if number > 0 {
			fields["parent"] = images[number-1].id
		}
		one.json = must(json.MarshalIndent(fields, "", " ")) // spaces that must survive
		images = append(images, one)
	}
	return images
}

// layer is the tar of an image's files.
func (one image) layer() io.Reader {
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(one.files)) {
		content := one.files[name]
		check(writer.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}))
		must(writer.Write(content))
	}
	check(writer.Close())
	return &out
}

func push(session *registry.Session, name reference.Named, images []image) {
	var list []*registry.ImgData
	for _, one := range images {
		list = append(list, &registry.ImgData{ID: one.id})
	}
	list[len(list)-1].Tag = "latest"
	data := must(session.PushImageJSONIndex(name, list, false, nil))
	for _, endpoint := range data.Endpoints {
		for number, one := range images {
			pushImage(session, endpoint, one, list[number])
			switch number {
			case 0:
				check(session.PushRegistryTag(name, one.id, "base", endpoint))
			case len(images) - 1:
				check(session.PushRegistryTag(name, one.id, "latest", endpoint))
			}
		}
	}
	must(session.PushImageJSONIndex(name, list, true, data.Endpoints))
}

func pushImage(session *registry.Session, endpoint string, one image, data *registry.ImgData) {
	if session.LookupRemoteImage(one.id, endpoint) == nil {
		return
	}
	if err := session.PushImageJSONRegistry(data, one.json, endpoint); err == registry.ErrAlreadyExists {
		return
	} else {
		check(err)
	}
	sum, payload, err := session.PushImageLayerRegistry(one.id, one.layer(), endpoint, one.json)
	check(err)
	data.Checksum, data.ChecksumPayload = sum, payload
	check(session.PushImageChecksumRegistry(data, endpoint))
}

func pull(session *registry.Session, name reference.Named, images []image) {
	data := must(session.GetRepositoryData(name))
	for _, one := range images {
		if data.ImgList[one.id] == nil {
			fail("%s is not listed", one.id)
		}
	}
	tags := must(session.GetRemoteTags(data.Endpoints, name))
	top := images[len(images)-1].id
	if tags["latest"] != top || tags["base"] != images[0].id {
		fail("tags: %v", tags)
	}
	for _, endpoint := range data.Endpoints {
		history := must(session.GetRemoteHistory(top, endpoint))
		slices.Reverse(history)
		for number, one := range images {
			if len(history) != len(images) || history[number] != one.id {
				fail("history: %v", history)
			}
			pullImage(session, endpoint, one)
		}
	}
}

func pullImage(session *registry.Session, endpoint string, one image) {
	found, size, err := session.GetRemoteImageJSON(one.id, endpoint)
	check(err)
	if !bytes.Equal(found, one.json) {
		fail("the JSON of %s came back as %s", one.id, found)
	}
	body := must(session.GetRemoteImageLayer(one.id, endpoint, size))
	defer body.Close()
	packed := must(io.ReadAll(body))
	if size != int64(len(packed)) {
		fail("the layer of %s has %d bytes, not %d", one.id, len(packed), size)
	}
	files := map[string][]byte{}
	reader := tar.NewReader(must(gzip.NewReader(bytes.NewReader(packed))))
	for {
		header, err := reader.Next()
		if err == io.EOF {
			break
		}
		check(err)
		files[header.Name] = must(io.ReadAll(reader))
	}
	if !maps.EqualFunc(files, one.files, bytes.Equal) {
		fail("the layer of %s came back with other files", one.id)
	}
}
