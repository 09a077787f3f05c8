package discovery

import (
	"strings"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSlices(t *testing.T) {
	k := Kinds()[0]
	port := int32(80)
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "web-x", Namespace: "ns", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Port: &port}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1", "10.0.0.2"}}, {Addresses: []string{"10.0.0.3", "10.0.0.4"}}},
	}
	k.Default(s)
	k.Reset(s, nil, "")
	if *s.Ports[0].Protocol != "TCP" || *s.Ports[0].Name != "" || s.Generation != 1 {
		t.Errorf("%+v", s)
	}
	if errs := k.Validate(s, nil, ""); len(errs) > 0 {
		t.Errorf("%v", errs)
	}
	if got := k.Indexes[ServiceIndex](s); len(got) != 1 || got[0] != "ns/web" {
		t.Errorf("%v", got)
	}
	if row := k.Row(s); row[2] != "80" || row[3] != "10.0.0.1,10.0.0.2,10.0.0.3 + 1 more..." {
		t.Errorf("%v", row)
	}
	for address, want := range map[string]string{
		"127.0.0.1": "may not be in the loopback range",
		"::1":       "must be an IPv4 address",
		"010.0.0.1": "must not have leading 0s",
		"x":         "must be a valid IP address",
	} {
		bad := s.DeepCopy()
		bad.Endpoints[0].Addresses = []string{address}
		errs := k.Validate(bad, nil, "")
		if len(errs) == 0 || !strings.Contains(errs[0].Error(), want) {
			t.Errorf("%s: %v", address, errs)
		}
		if errs := k.Validate(bad, bad, ""); len(errs) > 0 {
			t.Errorf("what was there is refused: %v", errs)
		}
	}
	other := s.DeepCopy()
	other.AddressType = discoveryv1.AddressTypeIPv6
	if errs := k.Validate(other, s, ""); len(errs) != 1 || errs[0].Field != "addressType" {
		t.Errorf("%v", errs)
	}
}
