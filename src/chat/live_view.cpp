#include "multiverse/chat/live_view.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "multiverse/base/check.h"
#include "multiverse/chat/terminal_text.h"

namespace multiverse {
namespace {

constexpr std::string_view kDim = "2", kGreen = "32";
// Of a path's text; more than any line shows.
constexpr std::size_t kTailBytes = 2048;
constexpr int kMinColumns = 20;
constexpr int kIndent = 2;

// "1.2/1.1" as numbers; nothing where it isn't an address.
std::optional<std::vector<std::int32_t>> parse_address(std::string_view id) {
  std::vector<std::int32_t> address;
  while (true) {
    std::int32_t number = 0;
    const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), number);
    if (error != std::errc() || number < 0) return std::nullopt;
    address.push_back(number);
    id.remove_prefix(static_cast<std::size_t>(end - id.data()));
    if (id.empty()) break;
    if (id.front() != (address.size() % 2 == 1 ? '.' : '/')) return std::nullopt;
    id.remove_prefix(1);
  }
  if (address.size() % 2 == 1) return std::nullopt;
  return address;
}

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

// Bytes of a tag (<Path>, </Path>) at the start of `text`, 0 where there is none.
std::size_t tag_at_start(std::string_view text) {
  if (text.empty() || text.front() != '<') return 0;
  std::size_t at = text.size() > 1 && text[1] == '/' ? 2 : 1;
  const std::size_t name = at;
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  while (at < text.size() && is_letter(text[at])) ++at;
  return at > name && at < text.size() && text[at] == '>' ? at + 1 : 0;
}

// What a path says, without what its line says already: the tag and the label at its start, the tag at its end.
std::string_view said(std::string_view text, std::string_view label, bool from_start, bool ended) {
  if (from_start) {
    text = trimmed(text);
    text = trimmed(text.substr(tag_at_start(text)));
    if (!label.empty() && text.substr(0, label.size()) == label) {
      std::string_view rest = text.substr(label.size());
      if (!rest.empty() && rest.front() == ':') text = rest.substr(1);
    }
  }
  text = trimmed(text);
  const std::size_t last = text.rfind("</");
  if (ended && last != std::string_view::npos && tag_at_start(text.substr(last)) == text.size() - last) {
    text = trimmed(text.substr(0, last));
  }
  return text;
}

std::string padded(std::string text, int width) {
  text.append(static_cast<std::size_t>(std::max(0, width - columns(text))), ' ');
  return text;
}

std::string name_of(std::size_t depth, std::string_view id, std::string_view label) {
  return std::string((depth - 1) * kIndent, ' ') + for_terminal(id, true) + "  " + for_terminal(label, true) + ":";
}

}  // namespace

void LiveView::resize(TerminalSize size) {
  size_ = {std::max(size.columns, kMinColumns), std::max(size.rows, 4)};
}

void LiveView::add_text(std::string_view text) {
  if (text.empty()) return;
  if (!paths_.empty()) fold();  // a server that doesn't tell of joins
  write(text);
}

void LiveView::add(const BranchUpdate& update) {
  if (update.id.empty()) {
    if (update.kind == BranchUpdate::Kind::kJoin) fold();
    if (update.kind == BranchUpdate::Kind::kToken) add_text(update.text);
    return;
  }
  const auto address = parse_address(update.id);
  if (!address) return;
  Path& path = paths_[*address];
  path.id = update.id;
  path.label = update.label;
  path.tokens = std::max(path.tokens, update.tokens);
  changed_ = true;
  switch (update.kind) {
    case BranchUpdate::Kind::kFork: {
      const Address parent(address->begin(), address->end() - 2);
      if (const auto found = paths_.find(parent); found != paths_.end()) found->second.forked = true;
      break;
    }
    case BranchUpdate::Kind::kToken:
      path.tail += update.text;
      if (path.tail.size() > 2 * kTailBytes) {
        path.tail.erase(0, path.tail.size() - kTailBytes);
        // Not in the middle of a character.
        while (!path.tail.empty() && (path.tail.front() & 0xC0) == 0x80) path.tail.erase(0, 1);
        path.cut = true;
      }
      break;
    case BranchUpdate::Kind::kEnd:
      path.ended = true;
      break;
    case BranchUpdate::Kind::kJoin:
      path.forked = false;
      break;
  }
}

void LiveView::write(std::string_view text) {
  fresh_ += with_dim_tags(for_terminal(text));
  at_line_start_ = text.back() == '\n';
  changed_ = true;
}

void LiveView::fold() {
  if (!at_line_start_) fresh_ += '\n';
  at_line_start_ = true;
  for (const std::string& line : region_lines(/*all=*/true)) fresh_ += line + '\n';
  paths_.clear();
  changed_ = true;
}

void LiveView::finish() {
  if (!paths_.empty()) fold();
  if (!at_line_start_) fresh_ += '\n';
  at_line_start_ = true;
  changed_ = true;
}

std::string LiveView::frame() {
  if (!std::exchange(changed_, false)) return "";
  std::string out;
  if (drawn_lines_ > 0) out += concat("\r\x1b[", drawn_lines_, "A\x1b[J");
  out += std::exchange(fresh_, {});
  drawn_lines_ = 0;
  if (paths_.empty()) return out;
  if (!at_line_start_) out += '\n';
  at_line_start_ = true;
  for (const std::string& line : region_lines(/*all=*/false)) {
    out += line + '\n';
    ++drawn_lines_;
  }
  return out;
}

// `all`: also those that the region has no room for; else what still runs goes before what has ended.
std::vector<std::string> LiveView::region_lines(bool all) const {
  const auto room = static_cast<std::size_t>(size_.rows - 2);
  int name_columns = 0;
  std::size_t running = 0;
  for (const auto& [address, path] : paths_) {
    name_columns = std::max(name_columns, columns(name_of(address.size() / 2, path.id, path.label)));
    running += path.ended ? 0 : 1;
  }
  const bool too_many = !all && paths_.size() > room;
  std::vector<std::string> lines;
  for (const auto& [address, path] : paths_) {
    if (too_many && (lines.size() == room - 1 || (path.ended && running >= room - 1))) continue;
    lines.push_back(line(address, path, name_columns));
  }
  if (too_many) {
    const std::string rest =
        concat(paths_.size() - lines.size(), " more paths; ", running, " of ", paths_.size(), " still write");
    lines.push_back(styled(kDim, "  … " + last_columns(rest, size_.columns - 5)));
  }
  return lines;
}

std::string LiveView::line(const Address& address, const Path& path, int name_columns) const {
  const std::string name = name_of(address.size() / 2, path.id, path.label);
  const std::string count = concat(path.tokens);
  const std::string before = concat(std::string(count.size() < 5 ? 5 - count.size() : 0, ' '), count, " tokens  ");
  const std::string head = padded(name, std::min(name_columns, size_.columns / 2)) + before;
  const std::string mark = path.ended ? styled(kGreen, "✓") : path.forked ? "┬" : "▸";
  const int left = size_.columns - 1 - 4 - columns(head);
  if (left < 1) return concat("  ", mark, " ", last_columns(head, size_.columns - 5));
  const std::string text = for_terminal(said(path.tail, path.label, !path.cut, path.ended), /*one_line=*/true);
  return concat("  ", mark, " ", padded(name, std::min(name_columns, size_.columns / 2)), styled(kDim, before),
                last_columns(text, left));
}

std::string LiveView::styled(std::string_view code, std::string_view text) const {
  return colors_ ? concat("\x1b[", code, "m", text, "\x1b[0m") : std::string(text);
}

// Tags are the model's punctuation; what stands between them is what a person reads.
std::string LiveView::with_dim_tags(std::string_view text) const {
  if (!colors_) return std::string(text);
  std::string out;
  while (!text.empty()) {
    if (const std::size_t tag = tag_at_start(text); tag > 0) {
      out += styled(kDim, text.substr(0, tag));
      text.remove_prefix(tag);
    } else {
      const std::size_t next = std::min(text.find('<', 1), text.size());
      out += text.substr(0, next);
      text.remove_prefix(next);
    }
  }
  return out;
}

}  // namespace multiverse
