package encrypt

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// configuration is an EncryptionConfiguration.
type configuration struct {
	metav1.TypeMeta
	Resources []resourceConfig `json:"resources"`
}

type resourceConfig struct {
	Resources []string         `json:"resources"` // "secrets", "pandas.bears.example", "*.apps", "*.", "*.*"
	Providers []providerConfig `json:"providers"`
}

// providerConfig has exactly one field set.
type providerConfig struct {
	AESGCM    *keysConfig `json:"aesgcm,omitempty"`
	AESCBC    *keysConfig `json:"aescbc,omitempty"`
	Secretbox *keysConfig `json:"secretbox,omitempty"`
	Identity  *struct{}   `json:"identity,omitempty"`
	KMS       *kmsConfig  `json:"kms,omitempty"`
}

type keysConfig struct {
	Keys []key `json:"keys"`
}

type key struct {
	Name   string `json:"name"`
	Secret string `json:"secret"` // base64
}

type kmsConfig struct {
	APIVersion string           `json:"apiVersion"`
	Name       string           `json:"name"`
	Endpoint   string           `json:"endpoint"` // unix:///PATH
	CacheSize  *int32           `json:"cachesize,omitempty"`
	Timeout    *metav1.Duration `json:"timeout,omitempty"` // of one call; nil = 3 s
}

const kmsTimeout = 3 * time.Second

// parse a file into rules. Errors name fields, never what a secret is.
func parse(data []byte) (*rules, error) {
	c := &configuration{}
	if err := yaml.UnmarshalStrict(data, c); err != nil {
		return nil, fmt.Errorf("no EncryptionConfiguration: %w", err)
	}
	if c.Kind != "EncryptionConfiguration" || c.APIVersion != "apiserver.config.k8s.io/v1" {
		return nil, fmt.Errorf("it says kind %q, apiVersion %q: write kind: EncryptionConfiguration, apiVersion: apiserver.config.k8s.io/v1", c.Kind, c.APIVersion)
	}
	if err := c.validate().ToAggregate(); err != nil {
		return nil, err
	}
	return newRules(c)
}

func (c *configuration) validate() field.ErrorList {
	root := field.NewPath("resources")
	if len(c.Resources) == 0 {
		return field.ErrorList{field.Required(root, "name at least one resource and a provider for it")}
	}
	var all field.ErrorList
	earlier := map[schema.GroupResource]bool{}
	plugins := map[string]bool{}
	for i, one := range c.Resources {
		at := root.Index(i)
		all = append(all, validateResources(one.Resources, at.Child("resources"))...)
		for j, name := range one.Resources {
			gr := schema.ParseGroupResource(name)
			for _, wide := range []schema.GroupResource{{Group: gr.Group, Resource: "*"}, {Group: "*", Resource: "*"}} {
				if earlier[wide] {
					all = append(all, field.Invalid(at.Child("resources").Index(j), name, "an earlier entry for "+written(wide)+" has it already: put this one before"))
				}
			}
		}
		for _, name := range one.Resources {
			earlier[schema.ParseGroupResource(name)] = true
		}
		if len(one.Providers) == 0 {
			all = append(all, field.Required(at.Child("providers"), "name at least one, such as aesgcm, secretbox, kms or identity"))
		}
		for j, p := range one.Providers {
			all = append(all, p.validate(at.Child("providers").Index(j), plugins)...)
		}
	}
	return all
}

func written(gr schema.GroupResource) string {
	if gr.Group == "" {
		return gr.Resource + "."
	}
	return gr.String()
}

func validateResources(names []string, at *field.Path) field.ErrorList {
	if len(names) == 0 {
		return field.ErrorList{field.Required(at, "name at least one, such as secrets")}
	}
	var all field.ErrorList
	for i, name := range names {
		bad := func(why string) { all = append(all, field.Invalid(at.Index(i), name, why)) }
		gr := schema.ParseGroupResource(name)
		switch {
		case name == "*":
			bad("write *. for all of the core group or *.* for everything")
		case strings.ToLower(name) != name:
			bad("resources have no capital letters")
		case name == "apiserveripinfo", name == "serviceipallocations", name == "servicenodeportallocations":
			bad("this is no resource of the API")
		case gr.Group == "events.k8s.io":
			bad("events are kept in the core group: write events")
		case gr.Group == "extensions":
			bad("there is no group extensions any more")
		case gr.Group == "*" && gr.Resource != "*":
			bad("one resource of all groups cannot be named: write *.* or RESOURCE.GROUP")
		}
		for j, other := range names {
			o := schema.ParseGroupResource(other)
			switch {
			case j == i:
			case o == gr:
				if j > i {
					bad("it is named twice")
				}
			case o.Resource == "*" && (o.Group == "*" || o.Group == gr.Group):
				bad("the same list names " + other + ", which it is part of")
			}
		}
	}
	return all
}

func (p providerConfig) validate(at *field.Path, plugins map[string]bool) field.ErrorList {
	var all field.ErrorList
	found := 0
	count := func(there bool) {
		if there {
			found++
		}
	}
	count(p.Identity != nil)
	for _, of := range []struct {
		name string
		keys *keysConfig
		size []int
	}{{"aesgcm", p.AESGCM, []int{16, 24, 32}}, {"aescbc", p.AESCBC, []int{16, 24, 32}}, {"secretbox", p.Secretbox, []int{32}}} {
		count(of.keys != nil)
		if of.keys != nil {
			all = append(all, validateKeys(of.keys.Keys, at.Child(of.name, "keys"), of.size)...)
		}
	}
	count(p.KMS != nil)
	if p.KMS != nil {
		all = append(all, p.KMS.validate(at.Child("kms"), plugins)...)
	}
	if found != 1 {
		all = append(all, field.Required(at, "write exactly one of aesgcm, aescbc, secretbox, kms, identity: {} in each entry of the list"))
	}
	return all
}

func validateKeys(keys []key, at *field.Path, sizes []int) field.ErrorList {
	if len(keys) == 0 {
		return field.ErrorList{field.Required(at, "name at least one key")}
	}
	var all field.ErrorList
	for i, k := range keys {
		if k.Name == "" {
			all = append(all, field.Required(at.Index(i).Child("name"), "a key needs a name"))
		}
		secret, err := base64.StdEncoding.DecodeString(k.Secret)
		switch {
		case err != nil:
			all = append(all, field.Invalid(at.Index(i).Child("secret"), "REDACTED", "it is not base64"))
		case !slices.Contains(sizes, len(secret)):
			all = append(all, field.Invalid(at.Index(i).Child("secret"), "REDACTED",
				fmt.Sprintf("it has %d bytes, but one of %v is needed (head -c 32 /dev/urandom | base64)", len(secret), sizes)))
		}
	}
	return all
}

func (k *kmsConfig) validate(at *field.Path, plugins map[string]bool) field.ErrorList {
	var all field.ErrorList
	bad := func(child string, value any, why string) {
		all = append(all, field.Invalid(at.Child(child), value, why))
	}
	switch {
	case k.Name == "":
		all = append(all, field.Required(at.Child("name"), "a plugin needs a name"))
	case strings.Contains(k.Name, ":"):
		bad("name", k.Name, "it may not contain a colon")
	case plugins[k.Name]:
		bad("name", k.Name, "another plugin has this name")
	}
	plugins[k.Name] = true
	if k.APIVersion != "v2" {
		bad("apiVersion", k.APIVersion, "write v2: the first version (which is also what nothing means) is off since v1.29")
	}
	if k.CacheSize != nil {
		bad("cachesize", *k.CacheSize, "v2 has none")
	}
	if k.Timeout != nil && k.Timeout.Duration <= 0 {
		bad("timeout", k.Timeout.Duration.String(), "write a time such as 3s")
	}
	if !strings.HasPrefix(k.Endpoint, "unix:///") {
		bad("endpoint", k.Endpoint, "write unix:///PATH of the plugin's socket")
	}
	return all
}
