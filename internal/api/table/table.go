// Package table holds what the descriptors' table columns have in common: the
// columns nearly every kind has, and cells as upstream prints them.
package table

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Col is a column of a type: "string", "integer", "boolean".
func Col(name, typ, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: typ, Description: description}
}

// Wide is a column that kubectl shows with -o wide only.
func Wide(name, typ, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: typ, Description: description, Priority: 1}
}

// Name is the column of metadata.name.
func Name() metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}
}

// Age is the column of metadata.creationTimestamp.
func Age() metav1.TableColumnDefinition {
	return Col("Age", "string", metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"])
}

// Containers are the wide columns of a pod template: ContainerCells fills them.
func Containers() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		Wide("Containers", "string", "Names of each container in the template."),
		Wide("Images", "string", "Images referenced by each container in the template."),
	}
}

// ContainerCells are the names and the images of containers.
func ContainerCells(containers []corev1.Container) (names, images string) {
	n := make([]string, len(containers))
	i := make([]string, len(containers))
	for c := range containers {
		n[c], i[c] = containers[c].Name, containers[c].Image
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}

// Text is a cell for an optional value, "<unset>" without one.
func Text[T any](v *T) string {
	if v == nil {
		return "<unset>"
	}
	return fmt.Sprint(*v)
}

// None is s, or "<none>" for an empty one. OwnOrNone is it for kinds that are listed
// by the thousand.
func None(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}
