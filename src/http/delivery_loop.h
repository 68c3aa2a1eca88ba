// A thread that carries many generations to their clients.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "http/delivery.h"

namespace multiverse {

// Sleeps until the engine has events for some of its generations, a client's socket takes bytes again or its client
// leaves, or a moment has come to look at the clock. So a step of the engine wakes one thread, however many streams it
// has a token for, and a client that leaves is noticed at once, in every phase.
class DeliveryLoop {
 public:
  DeliveryLoop();
  ~DeliveryLoop();  // no run() is under way any more
  DeliveryLoop(const DeliveryLoop&) = delete;
  DeliveryLoop& operator=(const DeliveryLoop&) = delete;

  // Returns when the delivery has nothing left to do, or throws where it threw. Any thread; does nothing but wait.
  void run(Delivery& delivery);

 private:
  struct Entry;
  using Time = Delivery::Time;

  void loop();
  bool take_work();
  void await_sockets();
  void enter(const std::shared_ptr<Entry>& entry);
  template <class Step>
  void step(Entry& entry, const Step& step);
  void leave(Entry& entry);
  void mark_ready(Entry& entry);  // any thread
  void wake();

  const int epoll_, wake_;  // the second an eventfd
  std::mutex mutex_;        // of what follows
  std::vector<std::shared_ptr<Entry>> arrived_;
  std::vector<Entry*> ready_;  // have events
  bool asleep_ = false;        // wants to be woken
  bool stopping_ = false;

  // The thread's alone.
  std::vector<std::shared_ptr<Entry>> entries_, entering_;
  std::vector<Entry*> told_;
  bool ended_ = false;  // some of entries_
  Time now_{}, next_tick_{};

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace multiverse
