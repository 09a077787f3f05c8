package kubectl

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// rawClient sends what no kubectl would.
type rawClient struct {
	t    *testing.T
	http *http.Client
	tls  *tls.Config
	host string
}

func newRawClient(t *testing.T, kubeconfig string) *rawClient {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	must(t, err)
	config.QPS = -1
	client, err := rest.HTTPClientFor(config)
	must(t, err)
	tlsConfig, err := rest.TLSConfigFor(config)
	must(t, err)
	u, err := url.Parse(config.Host)
	must(t, err)
	return &rawClient{t: t, http: client, tls: tlsConfig, host: u.Host}
}

func (c *rawClient) do(method, path, contentType, body string, header ...string) (int, []byte) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, "https://"+c.host+path, strings.NewReader(body))
	must(c.t, err)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	must(c.t, err)
	return resp.StatusCode, data
}

const (
	cms     = "/api/v1/namespaces/default/configmaps"
	jsonTyp = "application/json"
	good    = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"raw"},"data":{"a":"b"}}`
)

// TestBadRequests sends requests that are wrong as HTTP or as documents: each
// gets a Status that says why, and nothing is stored.
func TestBadRequests(t *testing.T) {
	c := newRawClient(t, startServer(t, build(t)))
	// what the server's own controllers put there has to be there first
	for code := 0; code != http.StatusOK; {
		code, _ = c.do("GET", "/api/v1/namespaces/default/configmaps/kube-root-ca.crt", "", "")
		if t.Context().Err() != nil {
			t.Fatal("kube-root-ca.crt never came")
		}
	}
	before := c.all()
	for name, r := range map[string]struct {
		method, path, contentType, body string
		header                          []string
		code                            int
		reason                          metav1.StatusReason
		message                         string // part of it
	}{
		"cut JSON":            {"POST", cms, jsonTyp, good[:40], nil, 400, "BadRequest", "unexpected end of JSON input"},
		"empty":               {"POST", cms, jsonTyp, "", nil, 400, "BadRequest", ""},
		"null":                {"POST", cms, jsonTyp, "null", nil, 422, "Invalid", "metadata.name"},
		"a list":              {"POST", cms, jsonTyp, "[]", nil, 400, "BadRequest", ""},
		"a string":            {"POST", cms, jsonTyp, `"x"`, nil, 400, "BadRequest", ""},
		"no JSON":             {"POST", cms, jsonTyp, "hello", nil, 400, "BadRequest", ""},
		"deep JSON":           {"POST", cms, jsonTyp, strings.Repeat(`{"a":`, 100000), nil, 400, "BadRequest", ""},
		"bad YAML":            {"POST", cms, "application/yaml", "a: b: c", nil, 400, "BadRequest", ""},
		"YAML bomb":           {"POST", cms, "application/yaml", bomb(), nil, 400, "BadRequest", ""},
		"bad protobuf":        {"POST", cms, "application/vnd.kubernetes.protobuf", "k8s\x00\xff\xff\xff", nil, 400, "BadRequest", ""},
		"no protobuf":         {"POST", cms, "application/vnd.kubernetes.protobuf", good, nil, 400, "BadRequest", ""},
		"not UTF-8":           {"POST", cms, jsonTyp, "{\"a\":\"\xff\xfe\"}", nil, 422, "Invalid", ""},
		"other kind":          {"POST", cms, jsonTyp, strings.Replace(good, "ConfigMap", "Secret", 1), nil, 400, "BadRequest", "Secret"},
		"other version":       {"POST", cms, jsonTyp, strings.Replace(good, `"v1"`, `"v2"`, 1), nil, 400, "BadRequest", "v2"},
		"other type":          {"POST", cms, "text/plain", good, nil, 415, "UnsupportedMediaType", ""},
		"odd type":            {"POST", cms, ";;;", good, nil, 415, "UnsupportedMediaType", ""},
		"other answer":        {"GET", cms, "", "", []string{"Accept", "image/png"}, 406, "NotAcceptable", ""},
		"too long":            {"POST", cms, jsonTyp, strings.Replace(good, `"b"`, `"`+strings.Repeat("b", 5<<20)+`"`, 1), nil, 413, "RequestEntityTooLarge", "limit is 3145728"},
		"too long as a patch": {"PATCH", "/api/v1/namespaces/default", "application/merge-patch+json", strings.Repeat(" ", 5<<20), nil, 413, "RequestEntityTooLarge", ""},
		"other namespace":     {"POST", cms, jsonTyp, strings.Replace(good, `"raw"`, `"raw","namespace":"other"`, 1), nil, 400, "BadRequest", "does not match"},
		"odd method":          {"BREW", cms, "", "", nil, 405, "MethodNotAllowed", ""},
		"PUT on a collection": {"PUT", cms, jsonTyp, good, nil, 405, "MethodNotAllowed", ""},
		"POST to a name":      {"POST", cms + "/raw", jsonTyp, good, nil, 405, "MethodNotAllowed", ""},
		"other patch":         {"PATCH", cms + "/kube-root-ca.crt", jsonTyp, "{}", nil, 415, "UnsupportedMediaType", ""},
		"uid in a patch":      {"PATCH", cms + "/kube-root-ca.crt", "application/merge-patch+json", `{"metadata":{"uid":"other"}}`, nil, 422, "Invalid", "metadata.uid: Invalid value: \"other\": field is immutable"},
		"uid in a JSON patch": {"PATCH", cms + "/kube-root-ca.crt", "application/json-patch+json", `[{"op":"replace","path":"/metadata/uid","value":"other"}]`, nil, 422, "Invalid", "metadata.uid"},
		"uid in strategic":    {"PATCH", "/api/v1/namespaces/default", "application/strategic-merge-patch+json", `{"metadata":{"uid":"other"}}`, nil, 422, "Invalid", "metadata.uid"},
		"uid applied":         {"PATCH", cms + "/kube-root-ca.crt?fieldManager=m", "application/apply-patch+yaml", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"kube-root-ca.crt","uid":"other"}}`, nil, 422, "Invalid", "metadata.uid"},
		"uid of nothing":      {"PATCH", cms + "/raw?fieldManager=m", "application/apply-patch+yaml", strings.Replace(good, `"raw"`, `"raw","uid":"other"`, 1), nil, 409, "Conflict", "uid mismatch: the provided object specified uid other, and no existing object was found"},
		"uid in a PUT":        {"PUT", cms + "/kube-root-ca.crt", jsonTyp, `{"metadata":{"name":"kube-root-ca.crt","uid":"other"}}`, nil, 409, "Conflict", "UID in precondition: other"},
		"bad patch":           {"PATCH", cms + "/kube-root-ca.crt", "application/json-patch+json", `[{"op":"dance","path":"/x"}]`, nil, 422, "Invalid", ""},
		"long patch":          {"PATCH", cms + "/kube-root-ca.crt", "application/json-patch+json", "[" + strings.Repeat(`{"op":"test","path":"/x"},`, 10001) + `{"op":"test","path":"/x"}]`, nil, 413, "RequestEntityTooLarge", ""},
		"apply, no manager":   {"PATCH", cms + "/raw", "application/apply-patch+yaml", good, nil, 422, "Invalid", "fieldManager"},
		"validation":          {"POST", cms + "?fieldValidation=Perhaps", jsonTyp, good, nil, 422, "Invalid", "fieldValidation"},
		"dry run":             {"POST", cms + "?dryRun=Some", jsonTyp, good, nil, 422, "Invalid", "dryRun"},
		"long manager":        {"POST", cms + "?fieldManager=" + strings.Repeat("m", 200), jsonTyp, good, nil, 422, "Invalid", "fieldManager"},
		"bad options":         {"DELETE", cms + "/kube-root-ca.crt", jsonTyp, `{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":"x"}`, nil, 400, "BadRequest", ""},
		"bad propagation":     {"DELETE", cms + "/kube-root-ca.crt", jsonTyp, `{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Sideways"}`, nil, 422, "Invalid", "propagationPolicy"},
		"no such path":        {"GET", "/api/v1/namespaces/default/configmaps/a/b/c/d", "", "", nil, 404, "NotFound", ""},
		"dots":                {"GET", "/api/v1/namespaces/%2e%2e/configmaps/%2e%2e%2f%2e%2e", "", "", nil, 404, "NotFound", ""},
		"encoded slash":       {"GET", cms + "/a%2fb", "", "", nil, 404, "NotFound", ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, body := c.do(r.method, r.path, r.contentType, r.body, r.header...)
			var s metav1.Status
			if err := json.Unmarshal(body, &s); err != nil || s.Kind != "Status" || s.Status != "Failure" {
				t.Fatalf("%d, and no Status: %.300q", code, body)
			}
			if code != r.code || s.Code != int32(code) || s.Reason != r.reason {
				t.Errorf("got %d %s, not %d %s: %s", code, s.Reason, r.code, r.reason, s.Message)
			}
			if len(s.Message) == 0 || len(s.Message) > 2000 || !strings.Contains(s.Message, r.message) {
				t.Errorf("the message, of %d bytes, does not say %q: %.300q", len(s.Message), r.message, s.Message)
			}
		})
	}
	if after := c.all(); after != before {
		t.Errorf("something was stored:\n%s\nbefore:\n%s", after, before)
	}
}

// all names of what bad requests could have left.
func (c *rawClient) all() string {
	c.t.Helper()
	var all []string
	for _, path := range []string{"/api/v1/configmaps", "/api/v1/secrets", "/api/v1/pods"} {
		code, body := c.do("GET", path, "", "")
		var list metav1.PartialObjectMetadataList
		if err := json.Unmarshal(body, &list); err != nil || code != 200 {
			c.t.Fatalf("GET %s: %d %s", path, code, body)
		}
		for _, o := range list.Items {
			if !strings.HasPrefix(o.Namespace, "kube-") { // those come by and by
				all = append(all, path+" "+o.Name)
			}
		}
	}
	return strings.Join(all, "\n")
}

// bomb is YAML that grows tenfold with every line.
func bomb() string {
	var b bytes.Buffer
	fmt.Fprintln(&b, "a0: &a0 [x,x,x,x,x,x,x,x,x,x]")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s*a%d]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), i-1)
	}
	return b.String()
}

// TestHalfRequests holds connections in ways no client of good will does, and
// sees that the server minds none of them.
func TestHalfRequests(t *testing.T) {
	c := newRawClient(t, startServer(t, build(t)))
	config := c.tls.Clone()
	config.NextProtos = []string{"http/1.1"}
	for name, r := range map[string]struct {
		send string
		code int // of the answer, 0 = none: we hang up
	}{
		"nothing":         {"", 0},
		"half a line":     {"GET /api", 0},
		"half a header":   {"GET /api HTTP/1.1\r\nHost: x\r\nAcc", 0},
		"half a body":     {"POST " + cms + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n" + good, 0},
		"half a chunk":    {"POST " + cms + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n" + good, 0},
		"no HTTP":         {"hello\r\n\r\n", 400},
		"no host":         {"GET /api HTTP/1.1\r\n\r\n", 400},
		"a bad header":    {"GET /api HTTP/1.1\r\nHost: x\r\na b: c\r\n\r\n", 400},
		"two lengths":     {"POST " + cms + " HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", 400},
		"negative length": {"POST " + cms + " HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400},
		"huge headers":    {"GET /api HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n", 431},
		"another version": {"GET /api HTTP/9.9\r\nHost: x\r\n\r\n", 505},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", c.host, config)
			must(t, err)
			defer conn.Close()
			must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
			if _, err := io.WriteString(conn, r.send); err != nil && r.code != 431 {
				t.Fatal(err)
			}
			if r.code == 0 {
				return
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil && r.code == 431 {
				return // it hung up before we had said it all: as good
			}
			must(t, err)
			_ = resp.Body.Close()
			if resp.StatusCode != r.code {
				t.Errorf("got %s, not %d", resp.Status, r.code)
			}
		})
	}
	if code, body := c.do("GET", "/readyz", "", ""); code != 200 {
		t.Errorf("after all that it is not ready: %d %s", code, body)
	}
	if code, body := c.do("GET", cms+"/raw", "", ""); code != 404 {
		t.Errorf("half a request was stored: %d %s", code, body)
	}
}
