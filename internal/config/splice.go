package config

import (
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// The YAML library writes a document back with its comments, but without its
// empty lines and in its own indentation. So an edit is first tried as a small
// change of the text, by the places of the nodes in it; what comes of that is
// used if it means the same as the edited nodes, which cover every form of YAML.

// text is a file in lines, each but perhaps the last with its line end.
type text []string

// splitText returns no lines where YAML counts them in another way: it ends them
// at other characters too, and takes UTF-16.
func splitText(data []byte) text {
	if !utf8.Valid(data) || strings.ContainsAny(strings.ReplaceAll(string(data), "\r\n", "\n"), "\r\u0085\u2028\u2029") {
		return nil
	}
	return slices.Collect(strings.Lines(string(data)))
}

// insert puts whole lines, each indented, before the line of this index.
func (t text) insert(index int, lines string, indent int) text {
	var all text
	if index > 0 && !strings.HasSuffix(t[index-1], "\n") {
		t[index-1] += "\n"
	}
	for line := range strings.Lines(lines) {
		all = append(all, strings.Repeat(" ", indent)+line)
	}
	return slices.Insert(t, index, all...)
}

// spliceStore puts a store into the text, whose root node is as parsed. It returns
// no text where it does not know how.
func spliceStore(t text, root *yaml.Node, name string, store *yaml.Node) (text, error) {
	if len(t) == 0 {
		return nil, nil
	}
	var key yaml.Node
	if err := key.Encode(name); err != nil {
		return nil, err
	}
	added, err := encodeNode(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{&key, store}})
	if err != nil {
		return nil, err
	}
	stores := member(root, "stores")
	switch {
	case stores == nil:
		return t.insert(len(t), "stores:\n", 0).insert(len(t)+1, string(added), 2), nil
	case len(stores.Content) == 0:
		line := t[stores.Line-1]
		t[stores.Line-1] = strings.Replace(line, " {}", "", 1)
		return t.insert(stores.Line, string(added), 2), nil
	default:
		return t.insert(endOf(t, root, stores), string(added), stores.Content[0].Column-1), nil
	}
}

// endOf returns the index of the line after a member of root. Comments at the
// margin belong to what follows them.
func endOf(t text, root, value *yaml.Node) int {
	end := len(t)
	if next := slices.Index(root.Content, value) + 1; next < len(root.Content) {
		end = root.Content[next].Line - 1
	}
	for end > value.Line && (strings.TrimSpace(t[end-1]) == "" || strings.HasPrefix(t[end-1], "#")) {
		end--
	}
	return end
}

// spliceItems puts items into a list, in brackets or in lines. It returns no text
// where it does not know how.
func spliceItems(t text, list *yaml.Node, items []string) text {
	if len(t) == 0 {
		return nil
	}
	last := list
	if n := len(list.Content); n > 0 {
		last = list.Content[n-1]
	}
	if list.Style&yaml.FlowStyle == 0 {
		return t.insert(last.Line, "- "+strings.Join(items, "\n- ")+"\n", list.Column-1)
	}
	line := []rune(t[last.Line-1])
	bracket := slices.Index(line[last.Column-1:], ']')
	if bracket < 0 {
		return nil
	}
	added := strings.Join(items, ", ")
	if last != list {
		added = ", " + added
	}
	t[last.Line-1] = string(slices.Insert(line, last.Column-1+bracket, []rune(added)...))
	return t
}
