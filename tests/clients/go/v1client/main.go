// Command v1client pushes an image of three layers with Docker's V1 protocol, as docker 1.x does, and pulls it back.
//
// It sends what that client sent: one connection for each request, image by image, the layer gzipped and chunked,
// both checksums, the tags, and the list of images before and after. Every byte that comes back is compared.
// It prints the ids of the images, the base first.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"net/http/cookiejar"
	"os"
	"slices"
	"strconv"
	"strings"
)

const agent = "docker/1.6.2 go/go1.4.2 kernel/4.0.0 os/linux arch/amd64"

// image is one V1 image: what the client has on its disk.
type image struct {
	id, parent   string
	config       []byte // its JSON
	plain, layer []byte // the tar, and the tar gzipped as it goes over the wire
}

// client is one session of a push or a pull.
type client struct {
	http  *http.Client
	base  string // scheme://host
	token string // the value for Authorization, once the index has given one
}

func main() {
	url := flag.String("url", "", "scheme and host of the registry")
	name := flag.String("name", "lab/v1", "namespace/repository")
	ca := flag.String("ca", "", "CA file")
	certificate := flag.String("cert", "", "client certificate")
	key := flag.String("key", "", "its key")
	flag.Parse()
	images := makeImages()
	push, pull := newClient(*url, *ca, *certificate, *key), newClient(*url, *ca, *certificate, *key)
	push.push(*name, images)
	push.push(*name, images[:1]) // a second push finds its image there
	pull.pull(*name, images)
	for _, one := range images {
		fmt.Println(one.id)
	}
}

func fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	os.Exit(1)
}

func must[T any](value T, err error) T {
	if err != nil {
		fail("%v", err)
	}
	return value
}

func newClient(base, ca, certificate, key string) *client {
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		settings.RootCAs = x509.NewCertPool()
		settings.RootCAs.AppendCertsFromPEM(must(os.ReadFile(ca)))
	}
	if certificate != "" {
		settings.Certificates = []tls.Certificate{must(tls.LoadX509KeyPair(certificate, key))}
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true, TLSClientConfig: settings}
	return &client{http: &http.Client{Transport: transport, Jar: must(cookiejar.New(nil))}, base: base}
}

// makeImages makes a chain of three: a big layer, a small one, an empty one.
func makeImages() []image {
	noise := make([]byte, 1_200_000)
	source := rand.New(rand.NewSource(1))
	source.Read(noise)
	contents := []map[string][]byte{
		{"data.bin": noise, "etc/motd": []byte("hello\n")},
		{"etc/motd": []byte("hello again\n")},
		{},
	}
	var images []image
	for number, files := range contents {
		one := image{plain: makeTar(files)}
		sum := sha256.Sum256(append([]byte{byte(number)}, one.plain...))
		one.id = hex.EncodeToString(sum[:])
		fields := map[string]any{
			"id": one.id, "created": "2014-01-20T00:00:00Z", "architecture": "amd64", "os": "linux",
			"container_config": map[string]any{"Cmd": []string{"/bin/sh", "-c", fmt.Sprintf("#(nop) %d", number)}},
		}
		if number > 0 {
			one.parent = images[number-1].id
			fields["parent"] = one.parent
		}
		one.config = must(json.MarshalIndent(fields, "", " ")) // spaces that must survive
		var packed bytes.Buffer
		writer := gzip.NewWriter(&packed)
		must(writer.Write(one.plain))
		writer.Close()
		one.layer = packed.Bytes()
		images = append(images, one)
	}
	return images
}

func makeTar(files map[string][]byte) []byte {
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	names := []string{}
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		header := tar.Header{Name: name, Mode: 0o100644, Size: int64(len(files[name])), Typeflag: tar.TypeReg}
		if err := writer.WriteHeader(&header); err != nil {
			fail("%v", err)
		}
		must(writer.Write(files[name]))
	}
	writer.Close()
	return out.Bytes()
}

// tarsum is the checksum of a tar that does not depend on the order of its members.
func tarsum(one image) string {
	var sums []string
	reader := tar.NewReader(bytes.NewReader(one.plain))
	for {
		header, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			fail("%v", err)
		}
		sum := sha256.New()
		fmt.Fprintf(sum, "name%smode%duid%dgid%dsize%dmtime%dtypeflag%clinkname%suname%sgname%sdevmajor%ddevminor%d",
			header.Name, header.Mode, header.Uid, header.Gid, header.Size, header.ModTime.Unix(), header.Typeflag,
			header.Linkname, header.Uname, header.Gname, header.Devmajor, header.Devminor)
		must(io.Copy(sum, reader))
		sums = append(sums, hex.EncodeToString(sum.Sum(nil)))
	}
	slices.Sort(sums)
	whole := sha256.New()
	whole.Write(one.config)
	io.WriteString(whole, strings.Join(sums, ""))
	return "tarsum+sha256:" + hex.EncodeToString(whole.Sum(nil))
}

func payloadSum(one image) string {
	sum := sha256.New()
	sum.Write(one.config)
	sum.Write([]byte{'\n'})
	sum.Write(one.layer)
	return "sha256:" + hex.EncodeToString(sum.Sum(nil))
}

// do sends one request; the answer's status must be one of `wanted`, any if there is none.
func (c *client) do(method, path string, body io.Reader, headers map[string]string, wanted ...int) (*http.Response, []byte) {
	request := must(http.NewRequest(method, c.base+path, body))
	request.Header.Set("User-Agent", agent)
	if c.token != "" {
		request.Header.Set("Authorization", "Token "+c.token)
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	response := must(c.http.Do(request))
	defer response.Body.Close()
	answer := must(io.ReadAll(response.Body))
	if len(wanted) > 0 && !slices.Contains(wanted, response.StatusCode) {
		fail("%s %s: %s, not %v: %s", method, path, response.Status, wanted, answer)
	}
	return response, answer
}

func (c *client) ping() {
	_, body := c.do("GET", "/v1/_ping", nil, nil, 200)
	if !json.Valid(body) {
		fail("ping: %q", body)
	}
}

func (c *client) push(name string, images []image) {
	c.ping()
	var list []map[string]string
	for number, one := range images {
		entry := map[string]string{"id": one.id}
		if number == len(images)-1 {
			entry["Tag"] = "latest"
		}
		list = append(list, entry)
	}
	asJSON := map[string]string{"Content-Type": "application/json"}
	index := map[string]string{"Content-Type": "application/json", "X-Docker-Token": "true"}
	response, _ := c.do("PUT", "/v1/repositories/"+name+"/", bytes.NewReader(must(json.Marshal(list))), index, 200, 201)
	c.token = response.Header.Get("X-Docker-Token")
	endpoint := response.Header.Get("X-Docker-Endpoints")
	if c.token == "" || !strings.HasSuffix(c.base, "//"+endpoint) {
		fail("the index gave token %q and endpoint %q", c.token, endpoint)
	}
	for number, one := range images {
		path := "/v1/images/" + one.id
		if response, _ := c.do("GET", path+"/json", nil, nil); response.StatusCode != 200 {
			c.do("PUT", path+"/json", bytes.NewReader(one.config), asJSON, 200)
			// A reader of no known length goes out in chunks.
			layer := io.MultiReader(bytes.NewReader(one.layer))
			c.do("PUT", path+"/layer", layer, map[string]string{"Content-Type": "application/octet-stream"}, 200)
			sums := map[string]string{"X-Docker-Checksum": tarsum(one), "X-Docker-Checksum-Payload": payloadSum(one)}
			c.do("PUT", path+"/checksum", nil, sums, 200)
		}
		if number == len(images)-1 {
			tag := "/v1/repositories/" + name + "/tags/latest"
			if len(images) == 1 {
				tag = "/v1/repositories/" + name + "/tags/base"
			}
			c.do("PUT", tag, strings.NewReader(strconv.Quote(one.id)), asJSON, 200, 201)
		}
	}
	done := map[string]string{"X-Docker-Token": "true", "X-Docker-Endpoints": c.base + "/v1/"}
	done["Content-Type"] = "application/json"
	c.do("PUT", "/v1/repositories/"+name+"/images", strings.NewReader("[]"), done, 204)
}

func (c *client) pull(name string, images []image) {
	c.ping()
	index := map[string]string{"X-Docker-Token": "true"}
	response, body := c.do("GET", "/v1/repositories/"+name+"/images", nil, index, 200)
	c.token = response.Header.Get("X-Docker-Token")
	var listed []struct{ ID string }
	if err := json.Unmarshal(body, &listed); err != nil || len(listed) != len(images) {
		fail("images: %v %s", err, body)
	}
	var tags map[string]string
	_, body = c.do("GET", "/v1/repositories/"+name+"/tags", nil, nil, 200)
	if err := json.Unmarshal(body, &tags); err != nil {
		fail("tags: %v %s", err, body)
	}
	top := images[len(images)-1].id
	if tags["latest"] != top || tags["base"] != images[0].id {
		fail("tags: %v", tags)
	}
	var ancestry []string
	_, body = c.do("GET", "/v1/images/"+top+"/ancestry", nil, nil, 200)
	if err := json.Unmarshal(body, &ancestry); err != nil || len(ancestry) != len(images) {
		fail("ancestry: %v %s", err, body)
	}
	slices.Reverse(ancestry)
	for number, one := range images {
		if ancestry[number] != one.id {
			fail("ancestry: %v", ancestry)
		}
		path := "/v1/images/" + one.id
		response, body := c.do("GET", path+"/json", nil, nil, 200)
		if !bytes.Equal(body, one.config) {
			fail("the JSON of %s came back as %s", one.id, body)
		}
		if size := response.Header.Get("X-Docker-Size"); size != "" && size != strconv.Itoa(len(one.layer)) {
			fail("the size of %s is %s, not %d", one.id, size, len(one.layer))
		}
		response, body = c.do("GET", path+"/layer", nil, nil, 200)
		if !bytes.Equal(body, one.layer) {
			fail("the layer of %s came back with %d bytes of %d", one.id, len(body), len(one.layer))
		}
		if response.Header.Get("Accept-Ranges") == "bytes" {
			c.resume(path, one)
		}
	}
}

// resume asks for the rest of a layer as docker does after a broken download: to one past the last byte.
func (c *client) resume(path string, one image) {
	half := len(one.layer) / 2
	header := map[string]string{"Range": fmt.Sprintf("bytes=%d-%d", half, len(one.layer))}
	if _, body := c.do("GET", path+"/layer", nil, header, 206); !bytes.Equal(body, one.layer[half:]) {
		fail("the rest of %s came back with %d bytes of %d", one.id, len(body), len(one.layer)-half)
	}
}
