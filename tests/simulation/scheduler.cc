#include "tests/simulation/scheduler.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "tests/simulation/stack_text.h"

namespace sluice::simulation {
namespace {

constexpr size_t kStackBytes = size_t{256} << 10;
constexpr int64_t kYieldNs = 1000;

// Streams of random numbers of one seed.
enum Stream : uint64_t { kSchedule = 1, kEntropy = 2 };

uint64_t stream(uint64_t seed, uint64_t which) { return Random::mix(seed ^ Random::mix(which)); }

std::string_view name_of(Wait wait) {
  switch (wait) {
    case Wait::kMutex:
      return "a mutex";
    case Wait::kReadLock:
      return "a lock to read";
    case Wait::kWriteLock:
      return "a lock to write";
    case Wait::kCondition:
      return "a condition variable";
    case Wait::kFutex:
      return "a futex";
    case Wait::kOnce:
      return "an initialisation";
    case Wait::kJoin:
      return "the end of thread";
    case Wait::kTime:
      return "a time";
  }
  return "";
}

size_t bucket_of(const void* address) { return Random::mix(reinterpret_cast<uintptr_t>(address)); }

void* run_main(void* argument) {
  std::string why;
  try {
    (*static_cast<const std::function<void()>*>(argument))();
    Scheduler::active()->finish(Result::End::kPassed, "");
  } catch (const std::exception& thrown) {
    why = thrown.what();
  }
  Scheduler::active()->finish(Result::End::kFailed, fmt::format("main() threw: {}", why));
}

void* run_body(void* argument) {
  const std::unique_ptr<std::function<void()>> body(static_cast<std::function<void()>*>(argument));
  (*body)();
  return nullptr;
}

}  // namespace

Scheduler* Scheduler::active_ = nullptr;
std::vector<Fiber*> Scheduler::prepared_;

void Scheduler::prepare(size_t fibers) {
  while (prepared_.size() < fibers) prepared_.push_back(Fiber::make(kStackBytes));
  // Loads what it needs.
  static const std::string loaded = own_stack();
}

Scheduler::Scheduler(uint64_t seed, const Options& options, Report& report)
    : options_(options),
      report_(report),
      random_(stream(seed, kSchedule)),
      entropy_seed_(stream(seed, kEntropy)),
      start_wall_ns_(options.wall_ms * 1'000'000) {
  constexpr std::array kPreempt{0.0, 1e-3, 0.02, 0.25};
  constexpr std::array kSpuriously{0.0, 0.0, 0.0, 0.01};
  preempt_ = options.preempt.value_or(kPreempt[random_.below(kPreempt.size())]);
  spuriously_ = options.spuriously.value_or(kSpuriously[random_.below(kSpuriously.size())]);
  free_.assign(prepared_.rbegin(), prepared_.rend());
  make_process("harness");
}

void Scheduler::begin(uint64_t seed, const Options& options, const std::function<void()>& main,
                      Report& report) {
  static Scheduler* const scheduler = new Scheduler(seed, options, report);
  active_ = scheduler;
  auto* const argument = const_cast<void*>(static_cast<const void*>(&main));
  Thread& first = scheduler->start_thread(scheduler->harness(), "main", run_main, argument);
  scheduler->root_ = Fiber::adopt_caller();
  scheduler->ready_.clear();
  scheduler->current_ = &first;
  scheduler->root_->switch_to(*first.fiber);
  std::abort();  // nobody switches back
}

// --- Scheduling ---

void Scheduler::step(int64_t takes_ns) {
  now_ns_ += takes_ns;
  ++steps_;
  mix(static_cast<uint64_t>(now_ns_) + current_->number);
  if (steps_ > options_.step_limit) {
    finish(Result::End::kDidNotEnd,
           fmt::format("did not end within {} steps\n{}", options_.step_limit, describe_threads()));
  }
  if (current_->no_switch > 0) return;
  const bool preempts = preempt_ > 0 && steps_ <= options_.preempted_steps;
  if (!may_run(*current_) || (preempts && random_.chance(preempt_))) switch_away();
}

void Scheduler::yield() {
  step(kYieldNs);
  if (current_->no_switch == 0) switch_away();
}

bool Scheduler::wait(Wait kind, const void* address, Deadline deadline) {
  Thread& me = *current_;
  me.wait = kind;
  me.waits_for = address;
  me.deadline = deadline;
  if (me.no_switch > 0) {
    finish(Result::End::kFailed,
           fmt::format("a thread waits in a NoSwitch scope: {}\n{}", describe(me), own_stack()));
  }
  me.state = Thread::State::kWaiting;
  ++me.waits;
  waiting_[bucket_of(address) % kBuckets].push_back(&me);
  set_due(me);
  if (!stopped_holders_.empty() && may_run(me)) need_holders(me);
  switch_away();
  return me.woken;
}

size_t Scheduler::wake(const void* address, size_t most) {
  std::vector<Thread*>& bucket = waiting_[bucket_of(address) % kBuckets];
  size_t woken = 0;
  while (woken < most) {
    const auto waits = [address](const Thread* thread) { return thread->waits_for == address; };
    const auto count = static_cast<uint64_t>(std::count_if(bucket.begin(), bucket.end(), waits));
    if (count == 0) break;
    uint64_t skip = count == 1 ? 0 : random_.below(count);
    const auto chosen = std::find_if(bucket.begin(), bucket.end(), [&](const Thread* thread) {
      return waits(thread) && skip-- == 0;
    });
    stop_waiting(**chosen, /*woken=*/true);
    ++woken;
  }
  return woken;
}

bool Scheduler::anybody_waits_for(const void* address) const {
  const std::vector<Thread*>& bucket = waiting_[bucket_of(address) % kBuckets];
  return std::any_of(bucket.begin(), bucket.end(),
                     [&](const Thread* thread) { return thread->waits_for == address; });
}

void Scheduler::make_ready(Thread& thread) {
  thread.state = Thread::State::kReady;
  (may_run(thread) ? ready_ : thread.process->parked).push_back(&thread);
}

void Scheduler::set_due(Thread& thread) {
  if (thread.deadline.never()) return;
  const int64_t ns = thread.deadline.wall ? thread.deadline.ns - wall_ns(*thread.process) + now_ns_
                                          : thread.deadline.ns;
  due_.push({ns, ++dues_, &thread, thread.waits});
  if (due_.size() > kMostDue)
    due_.drop([](const Due& due) { return due.wait != due.thread->waits; });
}

void Scheduler::stop_waiting(Thread& thread, bool woken) {
  std::erase(waiting_[bucket_of(thread.waits_for) % kBuckets], &thread);
  thread.woken = woken;
  thread.waits_for = nullptr;
  ++thread.waits;
  make_ready(thread);
}

void Scheduler::wake_due() {
  while (!due_.empty() && due_.top().ns <= now_ns_) {
    const Due due = due_.top();
    due_.pop();
    if (due.wait == due.thread->waits) stop_waiting(*due.thread, /*woken=*/false);
  }
}

void Scheduler::switch_away() {
  Thread& me = *current_;
  if (me.state == Thread::State::kReady) make_ready(me);
  Thread& next = choose();
  mix(next.number);
  if (&next == &me) return;
  ++switches_;
  go_to(next);
}

Thread& Scheduler::choose() {
  for (;;) {
    wake_due();
    if (!ready_.empty()) break;
    advance_to_next_due();
  }
  const size_t at = ready_.size() == 1 ? 0 : random_.below(ready_.size());
  Thread* const chosen = ready_[at];
  ready_[at] = ready_.back();
  ready_.pop_back();
  return *chosen;
}

void Scheduler::advance_to_next_due() {
  for (; !due_.empty(); due_.pop()) {
    const Due& due = due_.top();
    if (due.wait != due.thread->waits) continue;
    if (!due.thread->process->crashed() || due.thread->needed) break;
    stop_waiting(*due.thread, /*woken=*/false);  // and is parked; time does not move for it
  }
  if (due_.empty()) {
    finish(Result::End::kDeadlock,
           fmt::format("all threads wait, none for a time\n{}", describe_threads()));
  }
  if (is_event_held_up(due_.top().ns)) {
    finish(Result::End::kFailed,
           fmt::format("all that is due waits for a callback of at(), which waits\n{}",
                       describe_threads()));
  }
  now_ns_ = std::max(now_ns_, due_.top().ns);
  if (now_ns_ - kStartNs > options_.time_limit_ns) {
    finish(Result::End::kDidNotEnd,
           fmt::format("did not end within {} s\n{}", options_.time_limit_ns / 1'000'000'000,
                       describe_threads()));
  }
}

void Scheduler::go_to(Thread& next) {
  Thread& me = *current_;
  current_ = &next;
  me.fiber->switch_to(*next.fiber);
  while (looking_ != nullptr) {
    stack_ = own_stack();
    me.fiber->switch_to(*looking_->fiber);
  }
}

// --- Threads ---

Thread& Scheduler::start_thread(ProcessImpl& process, std::string name, void* (*start)(void*),
                                void* argument) {
  threads_.push_back(std::make_unique<Thread>());
  Thread& thread = *threads_.back();
  thread.number = static_cast<uint32_t>(threads_.size());
  thread.name = std::move(name);
  thread.process = &process;
  thread.start = start;
  thread.argument = argument;
  if (free_.empty()) free_.push_back(Fiber::make(kStackBytes));
  thread.fiber = free_.back();
  free_.pop_back();
  thread.fiber->begin(run_fiber, &thread);
  by_handle_[thread.fiber->self()] = &thread;
  ++process.living;
  make_ready(thread);
  return thread;
}

void Scheduler::run_fiber(void* argument) {
  auto* const thread = static_cast<Thread*>(argument);
  thread->begun = true;
  active_->end_current(thread->start(thread->argument));
}

void Scheduler::end_current(void* result) {
  Thread& me = *current_;
  me.result = result;
  me.state = Thread::State::kEnded;
  --me.process->living;
  wake(&me, SIZE_MAX);
  Fiber& mine = *me.fiber;
  if (me.detached) forget(me);
  current_ = &choose();
  mix(current_->number);
  ++switches_;
  mine.switch_to(*current_->fiber);
  std::abort();  // nobody switches back
}

Thread* Scheduler::thread_of(pthread_t handle) {
  const auto known = by_handle_.find(handle);
  return known == by_handle_.end() ? nullptr : known->second;
}

void Scheduler::forget(Thread& thread) {
  by_handle_.erase(thread.fiber->self());
  free_.push_back(thread.fiber);
  thread.fiber = nullptr;
}

void Scheduler::hold(const void* address) {
  if (current_->held.empty() && current_->process->stopped()) stopped_holders_.push_back(current_);
  current_->held.push_back(address);
}

void Scheduler::let_go(const void* address) {
  std::vector<const void*>& held = current_->held;
  const auto at = std::find(held.rbegin(), held.rend(), address);
  if (at == held.rend()) {
    finish(Result::End::kFailed, fmt::format("{} gives back {}, which it does not hold\n{}",
                                             describe(*current_), address, own_stack()));
  }
  held.erase(std::next(at).base());
  if (!held.empty()) return;
  current_->needed = false;
  if (current_->process->stopped()) std::erase(stopped_holders_, current_);
}

// --- Processes ---

ProcessImpl& Scheduler::make_process(std::string name) {
  const int pid = 1000 + static_cast<int>(processes_.size());
  processes_.push_back(std::make_unique<ProcessImpl>(
      std::move(name), pid, stream(entropy_seed_, static_cast<uint64_t>(pid))));
  return *processes_.back();
}

void Scheduler::stopped(ProcessImpl& process) {
  const auto stops = [&](const Thread* thread) { return !may_run(*thread); };
  std::copy_if(ready_.begin(), ready_.end(), std::back_inserter(process.parked), stops);
  std::erase_if(ready_, stops);
  for (const auto& thread : threads_) {
    if (thread->process == &process && !thread->held.empty()) {
      stopped_holders_.push_back(thread.get());
    }
  }
  if (stopped_holders_.empty()) return;
  for (const auto& thread : threads_) {
    if (thread->state == Thread::State::kWaiting && may_run(*thread)) need_holders(*thread);
  }
}

void Scheduler::resumed(ProcessImpl& process) {
  std::erase_if(stopped_holders_,
                [&](const Thread* holder) { return holder->process == &process; });
  ready_.insert(ready_.end(), process.parked.begin(), process.parked.end());
  process.parked.clear();
}

void Scheduler::need_holders(const Thread& thread) {
  const void* const address = thread.waits_for;
  for (Thread* const holder : stopped_holders_) {
    if (holder->needed ||
        std::find(holder->held.begin(), holder->held.end(), address) == holder->held.end()) {
      continue;
    }
    holder->needed = true;
    if (holder->state == Thread::State::kWaiting) {
      need_holders(*holder);
    } else if (std::erase(holder->process->parked, holder) > 0) {
      ready_.push_back(holder);
    }
  }
}

void Scheduler::clock_was_set(const ProcessImpl& process) {
  for (const auto& thread : threads_) {
    if (thread->process != &process || thread->state != Thread::State::kWaiting ||
        !thread->deadline.wall) {
      continue;
    }
    ++thread->waits;
    set_due(*thread);
  }
}

void Scheduler::at(int64_t time_ns, std::function<void()> callback) {
  events_.emplace(time_ns, std::move(callback));
  if (events_thread_ == nullptr) {
    events_thread_ = &start_thread(
        harness(), "events",
        [](void*) -> void* {
          active_->run_events();
          return nullptr;
        },
        nullptr);
  } else if (events_thread_->waits_for == &events_) {
    wake(&events_, 1);
  }
}

// Whether a callback waits, and would do so for longer than a lock takes to be let go of.
bool Scheduler::is_event_held_up(int64_t until_ns) const {
  return events_thread_ != nullptr && events_thread_->state == Thread::State::kWaiting &&
         events_thread_->waits_for != &events_ && until_ns > now_ns_ + kLongestEventNs;
}

void Scheduler::run_events() {
  for (;;) {
    if (events_.empty()) {
      wait(Wait::kTime, &events_);
    } else if (const int64_t first = events_.begin()->first; first > now_ns_) {
      wait(Wait::kTime, &events_, {first});
    } else {
      const std::function<void()> callback = std::move(events_.begin()->second);
      events_.erase(events_.begin());
      callback();
    }
  }
}

void ProcessImpl::start(std::string thread, std::function<void()> body) {
  Scheduler::active()
      ->start_thread(*this, std::move(thread), run_body, new std::function<void()>(std::move(body)))
      .detached = true;
}

void ProcessImpl::pause() {
  if (stopped()) return;
  paused_ = true;
  Scheduler::active()->stopped(*this);
}

void ProcessImpl::resume() {
  if (!paused_ || crashed_) return;
  paused_ = false;
  Scheduler::active()->resumed(*this);
}

void ProcessImpl::crash() {
  if (crashed_) return;
  const bool was_stopped = stopped();
  crashed_ = true;
  if (!was_stopped) Scheduler::active()->stopped(*this);
}

void ProcessImpl::set_wall_offset_ns(int64_t offset) {
  wall_offset_ns_ = offset;
  Scheduler::active()->clock_was_set(*this);
}

// --- What is told ---

void Scheduler::trace(std::string_view text) {
  mix(static_cast<uint64_t>(now_ns_));
  mix(current_->number);
  for (size_t i = 0; i < text.size(); i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, text.data() + i, std::min(sizeof(word), text.size() - i));
    mix(word);
  }
  mix(text.size());
  if (!options_.print_trace) return;
  fmt::print(stderr, "{:>15.6f} {:>3} {}/{}: {}\n", static_cast<double>(now_ns_ - kStartNs) / 1e9,
             current_->number, current_->process->name(), current_->name, text);
}

void Scheduler::output(std::string_view text) {
  const size_t bytes = std::min(text.size(), Report::kTextBytes - report_.output_bytes);
  std::memcpy(report_.output.data() + report_.output_bytes, text.data(), bytes);
  report_.output_bytes += bytes;
}

void Scheduler::finish(Result::End end, std::string_view why) {
  std::fflush(nullptr);
  report_.end = end;
  report_.failure_bytes = std::min(why.size(), Report::kTextBytes);
  std::memcpy(report_.failure.data(), why.data(), report_.failure_bytes);
  report_.trace_hash = hash_;
  report_.steps = steps_;
  report_.switches = switches_;
  report_.simulated_ns = now_ns_ - kStartNs;
  report_.finished = true;
  _exit(0);
}

std::string Scheduler::describe(const Thread& thread) const {
  std::string text = fmt::format("  {}/{} (thread {}{})", thread.process->name(), thread.name,
                                 thread.number, may_run(thread) ? "" : ", stopped");
  if (thread.state == Thread::State::kEnded) return text + " has ended";
  if (thread.state == Thread::State::kWaiting) {
    text += fmt::format(" waits for {}", name_of(thread.wait));
    if (thread.wait == Wait::kJoin) {
      text += fmt::format(" {}", static_cast<const Thread*>(thread.waits_for)->number);
    } else if (thread.wait != Wait::kTime) {
      text += fmt::format(" at {}", thread.waits_for);
      for (const auto& other : threads_) {
        if (std::find(other->held.begin(), other->held.end(), thread.waits_for) !=
            other->held.end()) {
          text += fmt::format(", which thread {} holds", other->number);
        }
      }
    }
    if (!thread.deadline.never()) {
      text += fmt::format(", until {:.6f} s{}", static_cast<double>(thread.deadline.ns) / 1e9,
                          thread.deadline.wall ? " of the wall clock" : "");
    }
  } else {
    text += &thread == current_ ? " runs" : " is ready";
  }
  for (const void* const held : thread.held) text += fmt::format("; holds {}", held);
  return text;
}

std::string Scheduler::stack_of(Thread& thread) {
  if (!thread.begun) return "      (has not begun)\n";
  if (&thread == current_) return own_stack();
  looking_ = current_;
  current_->fiber->switch_to(*thread.fiber);
  looking_ = nullptr;
  return std::move(stack_);
}

std::string Scheduler::describe_threads() {
  ++current_->no_switch;
  std::string text = fmt::format("at {:.6f} s:\n", static_cast<double>(now_ns_) / 1e9);
  for (const auto& thread : threads_) {
    if (thread->state == Thread::State::kEnded) continue;
    text += describe(*thread) + "\n" + stack_of(*thread);
  }
  --current_->no_switch;
  return text;
}

}  // namespace sluice::simulation
