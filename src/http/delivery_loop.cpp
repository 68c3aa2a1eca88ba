#include "http/delivery_loop.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <exception>
#include <future>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace multiverse {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Between looks at the clock, while anything runs: pings and deadlines are in seconds.
constexpr milliseconds kTick{20};
constexpr std::size_t kMaxEvents = 256;

int checked(int result) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), "watching connections with epoll");
  return result;
}

}  // namespace

// Shared, so that it outlives whichever of the two threads is done with it first.
struct DeliveryLoop::Entry {
  explicit Entry(Delivery& of) : delivery(of) {}
  Delivery& delivery;
  bool ready = false;  // stands in ready_; under mutex_
  bool ended = false;
  std::optional<std::string> failure;
  std::promise<void> done;
};

DeliveryLoop::DeliveryLoop()
    : epoll_(checked(epoll_create1(EPOLL_CLOEXEC))), wake_(checked(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))) {
  epoll_event event{};
  event.events = EPOLLIN;
  (void)epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event);
  thread_ = std::thread([this] { loop(); });
  (void)pthread_setname_np(thread_.native_handle(), "delivery");
}

DeliveryLoop::~DeliveryLoop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    wake();
  }
  thread_.join();
  close(wake_);
  close(epoll_);
}

void DeliveryLoop::run(Delivery& delivery) {
  const auto entry = std::make_shared<Entry>(delivery);
  std::future<void> done = entry->done.get_future();
  {
    const std::lock_guard lock(mutex_);
    arrived_.push_back(entry);
    wake();
  }
  done.get();
  if (entry->failure) throw std::runtime_error(*entry->failure);
}

// Under mutex_.
void DeliveryLoop::wake() {
  if (!std::exchange(asleep_, false)) return;
  const std::uint64_t one = 1;
  (void)!write(wake_, &one, sizeof one);
}

void DeliveryLoop::mark_ready(Entry& entry) {
  const std::lock_guard lock(mutex_);
  if (std::exchange(entry.ready, true)) return;
  ready_.push_back(&entry);
  wake();
}

void DeliveryLoop::loop() {
  while (take_work()) {
    await_sockets();
    for (const auto& entry : entering_) enter(entry);
    for (Entry* entry : told_) step(*entry, [this](Delivery& delivery) { return delivery.on_events(now_); });
    if (now_ >= next_tick_) {
      next_tick_ = now_ + kTick;
      for (const auto& entry : entries_) step(*entry, [this](Delivery& delivery) { return delivery.on_time(now_); });
    }
    if (!std::exchange(ended_, false)) continue;
    const auto still =
        std::partition(entries_.begin(), entries_.end(), [](const auto& entry) { return !entry->ended; });
    std::for_each(still, entries_.end(), [this](const auto& entry) { leave(*entry); });
    entries_.erase(still, entries_.end());
  }
}

// False once the loop stops.
bool DeliveryLoop::take_work() {
  told_.clear();
  entering_.clear();
  const std::lock_guard lock(mutex_);
  told_.swap(ready_);
  entering_.swap(arrived_);
  for (Entry* entry : told_) entry->ready = false;
  asleep_ = told_.empty() && entering_.empty();
  return !stopping_;
}

// Sleeps where there is no work, and has the deliveries see what happened to their sockets.
void DeliveryLoop::await_sockets() {
  int timeout = 0;
  if (told_.empty() && entering_.empty()) {
    const auto left = std::chrono::ceil<milliseconds>(next_tick_ - steady_clock::now()).count();
    timeout = entries_.empty() ? -1 : static_cast<int>(std::clamp<long long>(left, 0, kTick.count()));
  }
  std::array<epoll_event, kMaxEvents> events;
  const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout);
  now_ = steady_clock::now();
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    if (event.data.ptr == nullptr) {
      std::uint64_t times = 0;
      (void)!read(wake_, &times, sizeof times);
      continue;
    }
    step(*static_cast<Entry*>(event.data.ptr), [&](Delivery& delivery) {
      if ((event.events & (EPOLLERR | EPOLLHUP)) != 0) return delivery.on_gone();
      if ((event.events & EPOLLRDHUP) != 0 && !delivery.on_half_close(now_)) return false;
      return (event.events & EPOLLOUT) == 0 || delivery.on_writable(now_);
    });
  }
}

void DeliveryLoop::enter(const std::shared_ptr<Entry>& entry) {
  entries_.push_back(entry);
  step(*entry, [&](Delivery& delivery) {
    if (!delivery.open(now_)) return false;
    // Edges: a socket that stays writable, or half closed, is told of once.
    epoll_event event{};
    event.events = EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.ptr = entry.get();
    checked(epoll_ctl(epoll_, EPOLL_CTL_ADD, delivery.connection().fd(), &event));
    delivery.generation().notify([this, entry = entry.get()] { mark_ready(*entry); });
    return true;
  });
}

// What goes wrong with one delivery ends that one alone.
template <class Step>
void DeliveryLoop::step(Entry& entry, const Step& step) {
  if (entry.ended) return;
  try {
    entry.ended = !step(entry.delivery);
  } catch (const std::exception& failure) {
    entry.failure = failure.what();  // an exception stays with its thread: what counts its owners is invisible to TSan
    entry.ended = true;
  }
  ended_ = ended_ || entry.ended;
}

// Nothing points to the entry any more.
void DeliveryLoop::leave(Entry& entry) {
  entry.delivery.generation().notify({});
  epoll_event unused{};
  (void)epoll_ctl(epoll_, EPOLL_CTL_DEL, entry.delivery.connection().fd(), &unused);
  {
    const std::lock_guard lock(mutex_);
    if (entry.ready) ready_.erase(std::find(ready_.begin(), ready_.end(), &entry));
  }
  entry.done.set_value();
}

}  // namespace multiverse
