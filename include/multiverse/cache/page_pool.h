// The fixed pool of KV pages: who holds them, which can be found again by content, which goes first. Ids only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multiverse {

// 128 bits that name a page's content and all that came before it (see PageHasher). Collisions are not expected.
struct PageKey {
  std::uint64_t high = 0, low = 0;
  bool operator==(const PageKey&) const = default;
};

struct PageKeyHash {
  std::size_t operator()(const PageKey& key) const { return static_cast<std::size_t>(key.low); }
};

class PagePool;

// One reference to a page: copies retain, destruction releases. Not atomic: the engine's thread only. The pool
// outlives all references.
class PageRef {
 public:
  PageRef() = default;
  PageRef(const PageRef& other);
  PageRef(PageRef&& other) noexcept : pool_(std::exchange(other.pool_, nullptr)), page_(other.page_) {}
  PageRef& operator=(PageRef other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(page_, other.page_);
    return *this;
  }
  ~PageRef();

  std::int32_t id() const { return page_; }

 private:
  friend class PagePool;
  friend class PageList;
  PageRef(PagePool* pool, std::int32_t page) : pool_(pool), page_(page) {}
  PagePool* pool_ = nullptr;
  std::int32_t page_ = -1;
};

// References to a run of pages of one pool, in order: what a vector of PageRefs would hold, in four bytes a page, so
// that a plan copies the ids of a long run at once. Lets its pages go tail first.
class PageList {
 public:
  PageList() = default;
  PageList(PageList&& other) noexcept : pool_(other.pool_), ids_(std::exchange(other.ids_, {})) {}
  PageList& operator=(PageList other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(ids_, other.ids_);
    return *this;
  }
  ~PageList() { clear(); }

  // `page` is of the same pool as those before it.
  void push_back(PageRef page);
  void clear();

  std::span<const std::int32_t> ids() const { return ids_; }
  std::int32_t operator[](std::size_t index) const { return ids_[index]; }
  std::size_t size() const { return ids_.size(); }
  bool empty() const { return ids_.empty(); }

 private:
  PagePool* pool_ = nullptr;
  std::vector<std::int32_t> ids_;
};

// Every page is in one of three states: free (no content), referenced, or cached (no reference, but published content
// that find() may bring back). allocate() takes free pages first, then the least recently released cached one; who
// releases a run of pages releases its tail first, so tails go before heads.
class PagePool {
 public:
  struct Counts {
    std::int32_t total = 0, free = 0, referenced = 0, cached = 0;
    std::int32_t shared = 0;  // of the referenced: those with two references or more
  };

  explicit PagePool(std::int32_t num_pages);
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  // A page without content, or nullopt where all are referenced. May evict a cached page.
  std::optional<PageRef> allocate();
  std::int32_t available() const { return static_cast<std::int32_t>(free_.size()) + num_cached_; }

  // Makes the page's content findable. Where another page has the key already, nothing happens: one is enough.
  void publish(const PageRef& page, const PageKey& key) { publish(page.id(), key); }
  void publish(std::int32_t page, const PageKey& key);  // it is referenced
  // The page with that content; it is referenced again. Changes the order of eviction only by taking the page out.
  std::optional<PageRef> find(const PageKey& key);
  // Forgets all content (the weights changed): cached pages become free, referenced ones stay but can't be found.
  void forget_all();

  Counts counts() const;
  std::int64_t evictions() const { return evictions_; }

  // CHECKs conservation: free + referenced + cached = all, lists consistent, keys one to one. Linear in the pool.
  void check_integrity() const;

 private:
  friend class PageRef;
  friend class PageList;
  struct Page {
    std::int32_t references = 0;
    std::int32_t older = -1, newer = -1;  // links of the list of cached pages
    bool published = false;
    bool cached = false;
    PageKey key;
  };

  Page& at(std::int32_t page) { return pages_[static_cast<std::size_t>(page)]; }
  const Page& at(std::int32_t page) const { return pages_[static_cast<std::size_t>(page)]; }
  void retain(std::int32_t page);
  void release(std::int32_t page);
  void unlink(std::int32_t page);
  void forget(std::int32_t page);

  std::vector<Page> pages_;
  std::vector<std::int32_t> free_;  // the last is taken next
  std::int32_t oldest_ = -1, newest_ = -1;
  std::int32_t num_cached_ = 0;
  std::int32_t num_shared_ = 0;
  std::int64_t evictions_ = 0;
  std::unordered_map<PageKey, std::int32_t, PageKeyHash> by_key_;
};

}  // namespace multiverse
