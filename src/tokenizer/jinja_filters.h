// The filters and tests by name. Names are known when a template is parsed, so an unknown one is an error there.
#pragma once

#include <string>
#include <string_view>

#include "tokenizer/jinja_value.h"

namespace multiverse::jinja {

using FilterFunction = Value (*)(Budget&, const Value& input, const Arguments&);
// Null where there is none. `safe` changes nothing: nothing here is escaped, and the string stays a plain one (Python's
// Markup would escape what is added to it).
FilterFunction find_filter(std::string_view name);

using TestFunction = bool (*)(Budget&, const Value& input, const Arguments&);
TestFunction find_test(std::string_view name);

// Filters of sequences, in a file of their own.
Value filter_batch(Budget&, const Value&, const Arguments&);
Value filter_dictsort(Budget&, const Value&, const Arguments&);
Value filter_first(Budget&, const Value&, const Arguments&);
Value filter_groupby(Budget&, const Value&, const Arguments&);
Value filter_items(Budget&, const Value&, const Arguments&);
Value filter_join(Budget&, const Value&, const Arguments&);
Value filter_last(Budget&, const Value&, const Arguments&);
Value filter_length(Budget&, const Value&, const Arguments&);
Value filter_list(Budget&, const Value&, const Arguments&);
Value filter_map(Budget&, const Value&, const Arguments&);
Value filter_max(Budget&, const Value&, const Arguments&);
Value filter_min(Budget&, const Value&, const Arguments&);
Value filter_reject(Budget&, const Value&, const Arguments&);
Value filter_rejectattr(Budget&, const Value&, const Arguments&);
Value filter_reverse(Budget&, const Value&, const Arguments&);
Value filter_select(Budget&, const Value&, const Arguments&);
Value filter_selectattr(Budget&, const Value&, const Arguments&);
Value filter_sort(Budget&, const Value&, const Arguments&);
Value filter_sum(Budget&, const Value&, const Arguments&);
Value filter_unique(Budget&, const Value&, const Arguments&);

}  // namespace multiverse::jinja
