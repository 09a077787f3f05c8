package setup

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"sigs.k8s.io/yaml"
)

// group of the configuration files.
const group = "apiserver.config.k8s.io"

// decode a configuration file of a kind, in any version, into its internal form
// with defaults. Unknown and duplicate fields are errors.
func decode[T runtime.Object](data []byte, kind string) (T, error) {
	var none T
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(data, &meta); err != nil {
		return none, fmt.Errorf("no YAML of a configuration: write apiVersion: %s/v1 and kind: %s first (%w)", group, kind, err)
	}
	if !strings.HasPrefix(meta.APIVersion, group+"/") || meta.Kind != kind {
		return none, fmt.Errorf("apiVersion %q and kind %q are no %s: write apiVersion: %s/v1 and kind: %s", meta.APIVersion, meta.Kind, kind, group, kind)
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	obj, err := runtime.Decode(serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder(), data)
	if runtime.IsNotRegisteredError(err) {
		return none, fmt.Errorf("apiVersion %q has no %s: write apiVersion: %s/v1", meta.APIVersion, kind, group)
	}
	if err != nil {
		return none, err
	}
	out, ok := obj.(T)
	if !ok {
		return none, fmt.Errorf("the file holds a %T", obj)
	}
	return out, nil
}

// hints say what to write into fields that were left empty.
var hints = []struct{ field, write string }{
	{"issuer.url", "the issuer as the tokens' iss says it, such as https://issuer.example.com"},
	{"authorizers", "a list such as [{type: Node, name: node}, {type: RBAC, name: rbac}]"},
	{"type", "Node, RBAC, ABAC, Webhook, AlwaysAllow or AlwaysDeny"},
	{"name", "a name of your choice for a Webhook, and the type in lower case for others"},
	{"webhook", "how to reach the webhook: timeout, failurePolicy, connectionInfo, …"},
	{"timeout", "such as 3s; 30s at most"},
	{"authorizedTTL", "such as 5m"},
	{"unauthorizedTTL", "such as 30s"},
	{"subjectAccessReviewVersion", "v1"},
	{"matchConditionSubjectAccessReviewVersion", "v1"},
	{"failurePolicy", "NoOpinion, or Deny"},
	{"connectionInfo.type", "KubeConfigFile"},
	{"kubeConfigFile", "the absolute path of a kubeconfig file whose cluster is the webhook"},
	{"expression", "a CEL expression"},
	{"claim", "the name of a claim, such as sub"},
}

var index = regexp.MustCompile(`\[\d+\]$`)

// explain what validation has found: each field with what is wrong and, where that
// does not say it, what to write.
func explain(all field.ErrorList) error {
	if len(all) == 0 {
		return nil
	}
	texts := make([]string, len(all))
	for n, e := range all {
		texts[n] = e.Error()
		if e.Type != field.ErrorTypeRequired || e.Detail != "" {
			continue
		}
		best := ""
		for _, h := range hints {
			name := index.ReplaceAllString(e.Field, "")
			if (name == h.field || strings.HasSuffix(name, "."+h.field)) && len(h.field) > len(best) {
				best = h.field
				texts[n] = e.Error() + ": write " + h.write
			}
		}
	}
	return errors.New(strings.Join(texts, "; "))
}
