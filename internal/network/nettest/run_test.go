package nettest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/knftables"

	mdns "github.com/miekg/dns"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver"
	"github.com/proa-dev/proa/internal/apiserver/inprocess"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/local"
	"github.com/proa-dev/proa/internal/network/dns"
	"github.com/proa-dev/proa/internal/network/ingress"
	"github.com/proa-dev/proa/internal/network/proxy"
	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/memory"
)

// server is an API server on a store in memory.
func server(t *testing.T) client.Conn {
	t.Helper()
	catalog, s := kinds.Catalog(), memory.New()
	c := cache.New(cache.Config{Store: s, Catalog: catalog, Decode: func(k *api.Kind, e store.Entry) (api.Object, error) {
		return wire.DecodeStorage(k, e.Value, e.Revision)
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = s.Close()
	})
	srv, err := apiserver.New(apiserver.Config{Catalog: catalog, Cache: c, Store: s})
	if err != nil {
		t.Fatal(err)
	}
	user := &inprocess.User{Verbs: srv.Verbs(), User: &request.User{Name: "test", Groups: []string{request.Masters}}}
	return local.New(local.Config{Server: user, Cache: c, Catalog: catalog, Manager: "test"})
}

func create[T api.Object](t *testing.T, conn client.Conn, obj T) T {
	t.Helper()
	out, err := client.For[T](conn).Create(context.Background(), obj)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wait(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func certificate(t *testing.T, name string) (crt, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// What is written to the API reaches the service table, DNS and the ingress.
func TestFromTheAPI(t *testing.T) {
	conn := server(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	create(t, conn, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	create(t, conn, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system"}})

	inf, log := client.NewInformers(conn), slog.New(slog.DiscardHandler)
	fake := knftables.NewFake(knftables.InetFamily, proxy.TableName("t"))
	px, err := proxy.New(proxy.Config{Cluster: "t", Node: proxy.Node{Name: "n1"}, NFT: fake, Log: log,
		Local: map[string]netip.AddrPort{"kube-system/kube-dns": netip.MustParseAddrPort("192.0.2.1:10053")}})
	if err != nil {
		t.Fatal(err)
	}
	index := dns.NewIndex("cluster.local")
	l, err := ingress.Listen("127.0.0.1:0", "--http-port")
	if err != nil {
		t.Fatal(err)
	}
	tlsListener, err := ingress.Listen("127.0.0.1:0", "--https-port")
	if err != nil {
		t.Fatal(err)
	}
	web := ingress.New(ingress.Config{HTTP: l, HTTPS: tlsListener, Log: log})
	var ended []chan error
	for _, run := range []func(context.Context) error{
		proxy.NewRunner(px, inf).Run,
		dns.NewRunner(index, inf).Run,
		dns.NewPublisher([]netip.Addr{netip.MustParseAddr("10.96.0.10")}, 10053, inf, log).Run,
		ingress.NewRunner(ingress.RunnerConfig{Server: web, Addresses: []string{"192.0.2.1"}, Log: log}, inf).Run,
		web.Serve,
		inf.Run,
	} {
		done := make(chan error, 1)
		ended = append(ended, done)
		go func() { done <- run(ctx) }()
	}
	defer func() {
		cancel()
		for _, done := range ended {
			<-done
		}
	}()

	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pod := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "odd") })}
	go pod.Serve(backend)
	defer pod.Close()
	port := int32(backend.Addr().(*net.TCPAddr).Port)

	tcp, name, node := corev1.ProtocolTCP, "", "n1"
	create(t, conn, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.7", Ports: []corev1.ServicePort{{Port: 8000}}}})
	prefix := networkingv1.PathTypePrefix
	create(t, conn, &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: networkingv1.IngressSpec{
		Rules: []networkingv1.IngressRule{{IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
			Paths: []networkingv1.HTTPIngressPath{{Path: "/parity", PathType: &prefix, Backend: networkingv1.IngressBackend{
				Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 8000}}}}}}}}}}})
	slice := create(t, conn, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: "web-x", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Protocol: &tcp, Port: &port}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.2"}, NodeName: &node}}})

	create(t, conn, &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "tls"}, Spec: networkingv1.IngressSpec{
		TLS:            []networkingv1.IngressTLS{{Hosts: []string{"shop.example.com"}, SecretName: "cert"}},
		DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 8000}}}}})
	crt, key := certificate(t, "shop.example.com")
	create(t, conn, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cert"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: crt, corev1.TLSPrivateKeyKey: key}})
	shown := func() string {
		c, err := tls.Dial("tcp", tlsListener.Addr().String(), &tls.Config{ServerName: "shop.example.com", InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	wait(t, "the Secret's certificate", func() bool { return shown() == "shop.example.com" })

	nft := func(want string) func() bool { return func() bool { return strings.Contains(fake.Dump(), want) } }
	find := func(name string) func() bool {
		return func() bool { records, _ := index.Find(name); return len(records) > 0 }
	}
	wait(t, "the cluster IP in the service table", nft("add element inet proa-t services4 { 10.96.0.7 . tcp . 8000 : goto pick4-1 }"))
	wait(t, "the DNS Service leads to this node", nft("10.96.0.10 . udp . 53 . 0x20000000 : 192.0.2.1 . 10053"))
	wait(t, "a name", find("web.shop.svc.cluster.local."))
	wait(t, "the name of the DNS itself", find("kube-dns.kube-system.svc.cluster.local."))
	wait(t, "the status of the Ingress", func() bool {
		ing, err := client.For[*networkingv1.Ingress](conn).Get(ctx, "shop", "web")
		return err == nil && len(ing.Status.LoadBalancer.Ingress) == 1 && ing.Status.LoadBalancer.Ingress[0].IP == "192.0.2.1"
	})

	// The API refuses loopback endpoints, so the answer itself is an ExternalName's.
	if err := client.For[*discoveryv1.EndpointSlice](conn).Delete(ctx, "shop", slice.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "no endpoints: refused", nft("add element inet proa-t refused4 { 10.96.0.7 . tcp . 8000 }"))
	get := func() (int, string) {
		resp, err := http.Get("http://" + l.Addr().String() + "/parity?int=15")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	wait(t, "503", func() bool { code, _ := get(); return code == 503 })
	svc, err := client.For[*corev1.Service](conn).Get(ctx, "shop", "web")
	if err != nil {
		t.Fatal(err)
	}
	svc = svc.DeepCopy()
	svc.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost", Ports: []corev1.ServicePort{{Port: port, Protocol: tcp}}}
	if _, err := client.For[*corev1.Service](conn).Update(ctx, svc); err != nil {
		t.Fatal(err)
	}
	wait(t, "a CNAME", func() bool {
		records, _ := index.Find("web.shop.svc.cluster.local.")
		return len(records) == 1 && records[0].Header().Rrtype == mdns.TypeCNAME
	})
	wait(t, "the cluster IP is gone", func() bool { return !nft("10.96.0.7")() })
}
