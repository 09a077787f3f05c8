package core

import (
	"crypto/tls"
	"encoding/json"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func configMapKind() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("ConfigMap"),
		Resource:         "configmaps",
		ShortNames:       []string{"cm"},
		New:              func() api.Object { return &corev1.ConfigMap{} },
		NewList:          func() runtime.Object { return &corev1.ConfigMapList{} },
		Default: api.Of(func(c *corev1.ConfigMap) {
			if c.Data == nil {
				c.Data = map[string]string{}
			}
		}),
		Validate: checks(validateConfigMap),
		Columns:  []metav1.TableColumnDefinition{table.Name(), table.Col("Data", "string", corev1.ConfigMap{}.SwaggerDoc()["data"]), table.Age()},
		Row: api.Rows(func(c *corev1.ConfigMap) []any {
			return []any{c.Name, int64(len(c.Data) + len(c.BinaryData)), table.AgeOf(c)}
		}),
	}
}

func validateConfigMap(e *validate.Errs, c, old *corev1.ConfigMap, _ string) {
	if old != nil && isTrue(old.Immutable) {
		frozen(e, c.Immutable, "data", reflect.DeepEqual(c.Data, old.Data) || len(c.Data)+len(old.Data) == 0)
		frozen(e, old.Immutable, "binaryData", reflect.DeepEqual(c.BinaryData, old.BinaryData) || len(c.BinaryData)+len(old.BinaryData) == 0)
	}
	size := 0
	for k, v := range c.Data {
		dataKey(e, k, validate.Root("data"))
		if _, twice := c.BinaryData[k]; twice {
			e.Invalid(validate.Root("data").Key(k), k, "duplicate of key present in binaryData")
		}
		size += len(v)
	}
	for k, v := range c.BinaryData {
		dataKey(e, k, validate.Root("binaryData"))
		size += len(v)
	}
	if size > corev1.MaxSecretSize {
		e.TooLong(validate.Root(""), corev1.MaxSecretSize)
	}
}

// frozen: what is immutable stays so, and its data with it.
func frozen(e *validate.Errs, immutable *bool, data string, same bool) {
	const why = "field is immutable when `immutable` is set"
	if !isTrue(immutable) {
		e.Forbidden(validate.Root("immutable"), why)
	}
	if !same {
		e.Forbidden(validate.Root(data), why)
	}
}

func dataKey(e *validate.Errs, key string, p *validate.Path) {
	if why := validation.IsConfigMapKey(key); why != nil {
		e.Invalids(p.Key(key), key, why)
	}
}

func secretKind() *api.Kind {
	doc := corev1.Secret{}.SwaggerDoc()
	return &api.Kind{
		GroupVersionKind: gvk("Secret"),
		Resource:         "secrets",
		New:              func() api.Object { return &corev1.Secret{} },
		NewList:          func() runtime.Object { return &corev1.SecretList{} },
		Default:          api.Of(defaultSecret),
		Reset: api.Resets(func(s, old *corev1.Secret, _ string) {
			if old != nil {
				defaults.Zero(&s.Type, old.Type)
			}
		}),
		Validate: checks(validateSecret),
		Warn: api.Warns(func(s, _ *corev1.Secret) []string {
			if s.Type == corev1.SecretTypeTLS {
				if _, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]); err != nil {
					return []string{err.Error()}
				}
			}
			return nil
		}),
		Columns: []metav1.TableColumnDefinition{table.Name(), table.Col("Type", "string", doc["type"]), table.Col("Data", "string", doc["data"]), table.Age()},
		Row:     api.Rows(func(s *corev1.Secret) []any { return []any{s.Name, string(s.Type), int64(len(s.Data)), table.AgeOf(s)} }),
		Fields:  api.FieldsOf(func(s *corev1.Secret) fields.Set { return fields.Set{"type": string(s.Type)} }),
	}
}

// defaultSecret also takes over stringData, which is a way to write and is
// never read back.
func defaultSecret(s *corev1.Secret) {
	if len(s.StringData) > 0 && s.Data == nil {
		s.Data = make(map[string][]byte, len(s.StringData))
	}
	for k, v := range s.StringData {
		s.Data[k] = []byte(v)
	}
	s.StringData = nil
	defaults.Zero(&s.Type, corev1.SecretTypeOpaque)
}

func validateSecret(e *validate.Errs, s, old *corev1.Secret, _ string) {
	if old != nil {
		if s.Type != old.Type {
			e.Invalid(validate.Root("type"), s.Type, validate.IsImmutable)
		}
		if isTrue(old.Immutable) {
			frozen(e, s.Immutable, "data", reflect.DeepEqual(s.Data, old.Data) || len(s.Data)+len(old.Data) == 0)
		}
	}
	data, size := validate.Root("data"), 0
	for k, v := range s.Data {
		dataKey(e, k, data)
		size += len(v)
	}
	if size > corev1.MaxSecretSize {
		e.TooLong(data, corev1.MaxSecretSize)
	}
	isJSON := func(key string) {
		if v, ok := s.Data[key]; !ok {
			e.Required(data.Key(key), "")
		} else if err := json.Unmarshal(v, &map[string]any{}); err != nil {
			e.Invalid(data.Key(key), "<secret contents redacted>", err.Error())
		}
	}
	has := func(key string) bool { _, ok := s.Data[key]; return ok }
	switch s.Type {
	case corev1.SecretTypeServiceAccountToken:
		if s.Annotations[corev1.ServiceAccountNameKey] == "" {
			e.Required(validate.Root("metadata").Child("annotations").Key(corev1.ServiceAccountNameKey), "")
		}
	case corev1.SecretTypeDockercfg:
		isJSON(corev1.DockerConfigKey)
	case corev1.SecretTypeDockerConfigJson:
		isJSON(corev1.DockerConfigJsonKey)
	case corev1.SecretTypeBasicAuth:
		if !has(corev1.BasicAuthUsernameKey) && !has(corev1.BasicAuthPasswordKey) {
			e.Required(data.Key(corev1.BasicAuthUsernameKey), "")
			e.Required(data.Key(corev1.BasicAuthPasswordKey), "")
		}
	case corev1.SecretTypeSSHAuth:
		if len(s.Data[corev1.SSHAuthPrivateKey]) == 0 {
			e.Required(data.Key(corev1.SSHAuthPrivateKey), "")
		}
	case corev1.SecretTypeTLS:
		for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
			if !has(key) {
				e.Required(data.Key(key), "")
			}
		}
	}
}

func serviceAccountKind() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("ServiceAccount"),
		Resource:         "serviceaccounts",
		ShortNames:       []string{"sa"},
		New:              func() api.Object { return &corev1.ServiceAccount{} },
		NewList:          func() runtime.Object { return &corev1.ServiceAccountList{} },
		Reset: api.Resets(func(a, _ *corev1.ServiceAccount, _ string) {
			for i := range a.Secrets {
				a.Secrets[i] = corev1.ObjectReference{Name: a.Secrets[i].Name}
			}
		}),
		Validate:     checks(func(*validate.Errs, *corev1.ServiceAccount, *corev1.ServiceAccount, string) {}),
		Warn:         api.Warns(warnServiceAccount),
		Columns:      []metav1.TableColumnDefinition{table.Name(), table.Age()},
		Row:          api.Rows(func(a *corev1.ServiceAccount) []any { return []any{a.Name, table.AgeOf(a)} }),
		Subresources: []api.Subresource{tokenRequest()},
	}
}

func warnServiceAccount(a, old *corev1.ServiceAccount) []string {
	const key = "kubernetes.io/enforce-mountable-secrets"
	if old != nil {
		if _, had := old.Annotations[key]; had {
			return nil
		}
	}
	if _, has := a.Annotations[key]; has {
		return []string{"metadata.annotations[" + key + "]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}
	}
	return nil
}
