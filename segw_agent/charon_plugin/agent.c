/* SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright the voice-dpki authors
 */
#include "agent.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/** Milliseconds on a clock that nobody sets. */
static int64_t now_ms()
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/** Connect, waiting for room in the agent's backlog until the deadline at most. Returns -1 if nobody listens. */
static int connect_agent(const char *path, u_int deadline_ms)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = {
		.tv_sec = deadline_ms / 1000,
		.tv_usec = deadline_ms % 1000 * 1000,
	};
	int fd;

	if (strlen(path) >= sizeof(address.sun_path))
	{
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
	{
		return -1;
	}
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) ||
		connect(fd, (struct sockaddr*)&address, sizeof(address)))
	{
		close(fd);
		return -1;
	}
	return fd;
}

/** Wait until the socket is ready for what is wanted. */
static agent_outcome_t wait_for(int fd, short wanted, int64_t end_ms)
{
	struct pollfd pfd = { .fd = fd, .events = wanted };
	int64_t left_ms;
	int ready;

	do
	{
		left_ms = end_ms - now_ms();
		if (left_ms <= 0)
		{
			return AGENT_LATE;
		}
		ready = poll(&pfd, 1, left_ms);
	}
	while (ready < 0 && errno == EINTR);
	return ready < 0 ? AGENT_AWAY : ready ? AGENT_ANSWERED : AGENT_LATE;
}

/** Send or receive all of the octets. */
static agent_outcome_t transfer(int fd, chunk_t octets, bool sending,
								int64_t end_ms)
{
	agent_outcome_t outcome;
	ssize_t moved;

	while (octets.len)
	{
		outcome = wait_for(fd, sending ? POLLOUT : POLLIN, end_ms);
		if (outcome != AGENT_ANSWERED)
		{
			return outcome;
		}
		moved = sending
			? send(fd, octets.ptr, octets.len, MSG_DONTWAIT | MSG_NOSIGNAL)
			: recv(fd, octets.ptr, octets.len, MSG_DONTWAIT);
		if (moved > 0)
		{
			octets = chunk_skip(octets, moved);
		}
		else if (moved == 0 || (errno != EAGAIN && errno != EINTR))
		{
			return AGENT_AWAY;
		}
	}
	return AGENT_ANSWERED;
}

/** Ask once. `reached` tells whether somebody took the connection. */
static agent_outcome_t ask_once(const char *path, int64_t end_ms,
								chunk_t request, chunk_t *body, bool *reached)
{
	agent_outcome_t outcome;
	uint8_t length[2];
	int fd;

	*reached = FALSE;
	fd = connect_agent(path, max(1, end_ms - now_ms()));
	if (fd < 0)
	{
		return errno == EAGAIN ? AGENT_LATE : AGENT_AWAY;
	}
	*reached = TRUE;
	outcome = transfer(fd, request, TRUE, end_ms);
	if (outcome == AGENT_ANSWERED)
	{
		outcome = transfer(fd, chunk_from_thing(length), FALSE, end_ms);
	}
	if (outcome == AGENT_ANSWERED)
	{
		*body = chunk_alloc(untoh16(length));
		outcome = transfer(fd, *body, FALSE, end_ms);
	}
	close(fd);
	if (outcome != AGENT_ANSWERED)
	{
		chunk_free(body);
	}
	return outcome;
}

agent_outcome_t agent_ask(const char *path, u_int deadline_ms, chunk_t request,
						  chunk_t *body)
{
	int64_t end_ms = now_ms() + deadline_ms;
	agent_outcome_t outcome;
	bool reached;

	*body = chunk_empty;
	outcome = ask_once(path, end_ms, request, body, &reached);
	if (outcome == AGENT_AWAY && reached)
	{	/* It may have ended because another one serves there now. */
		outcome = ask_once(path, end_ms, request, body, &reached);
	}
	return outcome;
}
