#include "multiverse/cache/page_pool.h"

#include "multiverse/base/check.h"

namespace multiverse {

PageRef::PageRef(const PageRef& other) : pool_(other.pool_), page_(other.page_) {
  if (pool_ != nullptr) pool_->retain(page_);
}

PageRef::~PageRef() {
  if (pool_ != nullptr) pool_->release(page_);
}

void PageList::push_back(PageRef page) {
  CHECK(ids_.empty() || page.pool_ == pool_, "page ", page.page_, " is of another pool than those before it");
  ids_.push_back(page.page_);
  pool_ = std::exchange(page.pool_, nullptr);  // the reference is the list's now
}

void PageList::clear() {
  for (auto id = ids_.rbegin(); id != ids_.rend(); ++id) pool_->release(*id);
  ids_.clear();
}

PagePool::PagePool(std::int32_t num_pages) {
  CHECK(num_pages > 0, "a page pool of ", num_pages, " pages");
  pages_.resize(static_cast<std::size_t>(num_pages));
  free_.reserve(pages_.size());
  for (std::int32_t page = num_pages - 1; page >= 0; --page) free_.push_back(page);
}

std::optional<PageRef> PagePool::allocate() {
  if (free_.empty()) {
    if (oldest_ < 0) return std::nullopt;
    const std::int32_t evicted = oldest_;
    ++evictions_;
    unlink(evicted);
    forget(evicted);
    free_.push_back(evicted);
  }
  const std::int32_t page = free_.back();
  free_.pop_back();
  at(page).references = 1;
  return PageRef(this, page);
}

void PagePool::publish(std::int32_t page, const PageKey& key) {
  Page& entry = at(page);
  CHECK(entry.references > 0, "page ", page, " is published without a reference");
  if (entry.published || !by_key_.emplace(key, page).second) return;
  entry.published = true;
  entry.key = key;
}

std::optional<PageRef> PagePool::find(const PageKey& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return std::nullopt;
  Page& entry = at(found->second);
  if (entry.cached) unlink(found->second);
  retain(found->second);
  return PageRef(this, found->second);
}

void PagePool::forget_all() {
  while (oldest_ >= 0) {
    const std::int32_t page = oldest_;
    unlink(page);
    free_.push_back(page);
  }
  for (Page& entry : pages_) entry.published = false;
  by_key_.clear();
}

void PagePool::retain(std::int32_t page) {
  if (++at(page).references == 2) ++num_shared_;
}

void PagePool::release(std::int32_t page) {
  Page& entry = at(page);
  CHECK(entry.references > 0, "page ", page, " is released without a reference");
  if (--entry.references == 1) --num_shared_;
  if (entry.references > 0) return;
  if (!entry.published) {
    free_.push_back(page);
    return;
  }
  entry.cached = true;
  entry.older = newest_;
  entry.newer = -1;
  (newest_ >= 0 ? at(newest_).newer : oldest_) = page;
  newest_ = page;
  ++num_cached_;
}

void PagePool::unlink(std::int32_t page) {
  Page& entry = at(page);
  (entry.older >= 0 ? at(entry.older).newer : oldest_) = entry.newer;
  (entry.newer >= 0 ? at(entry.newer).older : newest_) = entry.older;
  entry.older = entry.newer = -1;
  entry.cached = false;
  --num_cached_;
}

void PagePool::forget(std::int32_t page) {
  Page& entry = at(page);
  by_key_.erase(entry.key);
  entry.published = false;
}

PagePool::Counts PagePool::counts() const {
  Counts counts;
  counts.total = static_cast<std::int32_t>(pages_.size());
  counts.free = static_cast<std::int32_t>(free_.size());
  counts.cached = num_cached_;
  counts.referenced = counts.total - counts.free - counts.cached;
  counts.shared = num_shared_;
  return counts;
}

void PagePool::check_integrity() const {
  std::vector<char> seen(pages_.size(), 0);
  for (const std::int32_t page : free_) {
    CHECK(seen[static_cast<std::size_t>(page)]++ == 0, "page ", page, " is free twice");
    CHECK(at(page).references == 0 && !at(page).published, "free page ", page, " has references or content");
  }
  std::int32_t cached = 0;
  for (std::int32_t page = oldest_; page >= 0; page = at(page).newer) {
    CHECK(seen[static_cast<std::size_t>(page)]++ == 0, "page ", page, " is free and cached");
    CHECK(at(page).references == 0 && at(page).published && at(page).cached, "cached page ", page, " is not idle");
    ++cached;
  }
  CHECK(cached == num_cached_, cached, " pages in the list of cached ones, ", num_cached_, " counted");
  std::size_t published = 0;
  std::int32_t shared = 0;
  for (std::size_t page = 0; page < pages_.size(); ++page) {
    const Page& entry = pages_[page];
    CHECK(seen[page] == 1 || entry.references > 0, "page ", page, " is lost");
    CHECK(seen[page] == 0 || entry.references == 0, "page ", page, " is idle with ", entry.references, " references");
    if (entry.references > 1) ++shared;
    if (!entry.published) continue;
    ++published;
    const auto found = by_key_.find(entry.key);
    CHECK(found != by_key_.end() && found->second == static_cast<std::int32_t>(page), "page ", page,
          " is published, but its key names another");
  }
  CHECK(published == by_key_.size(), published, " published pages, ", by_key_.size(), " keys");
  CHECK(shared == num_shared_, shared, " shared pages, ", num_shared_, " counted");
}

}  // namespace multiverse
