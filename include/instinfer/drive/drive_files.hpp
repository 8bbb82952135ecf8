#pragma once
// A page store in files on a real drive: a KV cache that may be larger than memory.

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "instinfer/drive/page_files.hpp"
#include "instinfer/store/pages/concepts.hpp"

namespace instinfer::store {

// Its size is the budget of bytes: the files take it when the store is made, and no more later. An
// engine is given the store.
//
// Without a name in the options it is a scratch store: its files have no names, and are gone with
// it. To keep a sequence, save it (engine.save).
//
// With a name it lasts. engine.commit() makes all that the engine holds safe against the end of the
// process and a loss of power. An engine over a store of the same name and folders has the
// sequences of the last commit, and nothing of what came after it. Pages that the last commit has
// are not written again before the next one: where they are released, they become free by it. One
// store at a time may have a drive open. See docs/storage.md.
//
// An operation announces its plan. Its pages are then read in large requests ahead of the kernel,
// which folds them in the buffers that the drive has filled, with the same bits as from memory.
// Every page has a checksum in memory, which is compared before the page is used.
//
// Errors while pages are read: io_error, page_damaged. attend then leaves its outputs unchanged,
// and other sequences go on. A page that cannot be written stays in memory and can be read; the
// next append, build or load tries again and throws io_error if it fails, before it changes
// anything. Some calls read pages while they change a sequence: build, truncate, append of coded
// pages with summaries, and reclaim of tokens that a summary forgets by value (the mean of V). An
// error there leaves the sequence half-changed; reclaim it as a whole.
class drive_files {
 public:
  using options = drive::options;
  static constexpr bool holds_data = true;

  // Throws bad_argument as ledger does, without a folder, for pages that are no multiple of 512
  // bytes and for too small buffers; io_error where the files cannot be had, their space is not
  // there, or another store has the drive open; bad_file where a drive that lasts is damaged or has
  // another size.
  drive_files(const options& wanted, std::uint32_t channels, std::uint64_t pages_per_channel,
              std::uint32_t page_bytes)
      : files_{
            std::make_unique<drive::page_files>(wanted, channels, pages_per_channel, page_bytes)} {}

  page_id allocate(std::uint32_t preferred) { return files_->ledger().allocate(preferred); }
  void release(page_id page) noexcept { files_->release(page); }
  std::uint64_t free_pages() const { return files_->ledger().free_pages(); }
  std::uint64_t capacity_pages() const { return files_->ledger().capacity_pages(); }
  std::uint32_t channels() const { return files_->ledger().channels(); }

  // Throws bad_argument while a commit waits to be reopened.
  void begin_writes(std::uint32_t /*slot*/) {
    files_->require_reopened();
    files_->settle();
  }
  // Valid until the next call of write or flush, or until something is read.
  std::span<std::byte> write(page_id page) { return files_->write(page); }
  // Valid until the thread's eighth view after it, and until the next write.
  std::span<const std::byte> view(page_id page) const { return files_->view(page); }
  layout::planned_reads* read_ahead(const access_plan& plan,
                                    const layout::read_order& order) const {
    return files_->open(plan, order);
  }

  // Hands all written pages to the drive. This is done before each operation anyway.
  void flush() { files_->flush(); }

  // What a drive that lasts needs of its owner; engine.commit() calls it
  // (store/sequences/commit.hpp).
  // commit(content) makes all pages that are allocated last, with the bytes that content(out)
  // writes to a stream. Throws bad_argument for a scratch drive; io_error and what content throws,
  // and the commit before is then the newest one, or this one is, as a whole; page_damaged if a
  // page was lost on its way to the drive. A failed sync of the pages ends commits for good.
  // It must not run at the same time as any other call.
  template <class Content>
  void commit(Content&& content) {
    files_->commit(content);
  }
  // Whether the drive had a commit when it was opened, which reopen(content) has not taken up yet.
  // content(in) reads what the commit's content wrote.
  bool to_reopen() const { return files_->to_reopen(); }
  template <class Content>
  void reopen(Content&& content) {
    files_->reopen(content);
  }
  const std::string& name() const { return files_->name(); }
  std::uint64_t commits() const { return files_->commits(); }           // since the drive was made
  std::uint64_t commit_bytes() const { return files_->state_bytes(); }  // that the last one wrote
  std::uint64_t held_pages() const { return files_->held_pages(); }     // free after the next one

  // Whether the page is on the drive.
  bool holds(page_id page) const { return files_->holds(page); }

  // O_DIRECT or buffered, ring or threads: what is, not what was asked for.
  const drive::effective_mode& mode() const { return files_->mode(); }
  // Counts since the store was made. Bytes are whole pages.
  std::uint64_t bytes_read() const { return files_->bytes_read(); }
  std::uint64_t pages_written() const { return files_->pages_written(); }
  // Pages that the drive refused, and that are in memory.
  std::uint64_t kept_pages() const { return files_->kept_pages(); }

 private:
  std::unique_ptr<drive::page_files> files_;
};

}  // namespace instinfer::store
